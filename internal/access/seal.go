package access

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
)

// Key is a key of a cluster, under which secrets in its log are sealed. The log does not hold it.
type Key [32]byte

// NewKey returns a random key.
func NewKey() (k Key) {
	_, _ = rand.Read(k[:]) // it returns no error
	return k
}

// keyPrefix begins the text of a key.
const keyPrefix = "b4key:"

// Text encodes the key in a line, without its end.
func (k *Key) Text() string { return keyPrefix + base64.RawURLEncoding.EncodeToString(k[:]) }

// ParseKey parses what Text returns. Its errors do not contain it.
func ParseKey(text string) (Key, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(text), keyPrefix)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(raw) != len(Key{}) {
		return Key{}, errors.New("want a cluster key, as 'bridgefour ca key' prints it")
	}
	return Key(raw), nil
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
