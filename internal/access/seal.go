package access

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
)

// Key is a key of a cluster, under which secrets in its log are sealed. The log does not hold it.
type Key [32]byte

// NewKey returns a random key.
func NewKey() (k Key) {
	_, _ = rand.Read(k[:]) // it returns no error
	return k
}

// Seal encrypts a secret for the record name: AES-256-GCM with a random nonce, and name as additional data.
func Seal(key *Key, name string, secret []byte) []byte {
	return newGCM(key).Seal(nil, nil, secret, []byte(name))
}

// ErrSealed is the error of Open for another key or name, or for damaged data.
var ErrSealed = errors.New("sealed under another key, for another record, or damaged")

// Open decrypts what Seal has returned for the same key and name.
func Open(key *Key, name string, sealed []byte) ([]byte, error) {
	secret, err := newGCM(key).Open(nil, nil, sealed, []byte(name))
	if err != nil {
		return nil, ErrSealed
	}
	return secret, nil
}

func newGCM(key *Key) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // of its size only
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // of the block's size only
	}
	return gcm
}
