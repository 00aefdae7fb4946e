package access

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestSeal(t *testing.T) {
	key, other := NewKey(), NewKey()
	for _, secret := range []string{"", "hunter2"} {
		sealed := Seal(&key, "a", []byte(secret))
		if secret != "" && bytes.Contains(sealed, []byte(secret)) {
			t.Errorf("Seal(%q) contains it", secret)
		}
		if again := Seal(&key, "a", []byte(secret)); bytes.Equal(again, sealed) {
			t.Errorf("Seal(%q) is the same twice", secret)
		}
		if got, err := Open(&key, "a", sealed); err != nil || string(got) != secret {
			t.Errorf("Open() = %q, %v, want %q", got, err, secret)
		}
		damaged := append(bytes.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1)
		for what, open := range map[string]func() ([]byte, error){
			"another key":    func() ([]byte, error) { return Open(&other, "a", sealed) },
			"another record": func() ([]byte, error) { return Open(&key, "b", sealed) },
			"damage":         func() ([]byte, error) { return Open(&key, "a", damaged) },
			"a truncation":   func() ([]byte, error) { return Open(&key, "a", sealed[:5]) },
			"nothing":        func() ([]byte, error) { return Open(&key, "a", nil) },
		} {
			if got, err := open(); !errors.Is(err, ErrSealed) || got != nil {
				t.Errorf("Open() with %s = %q, %v, want %v", what, got, err, ErrSealed)
			}
		}
	}
}

func TestParseKey(t *testing.T) {
	key := NewKey()
	if got, err := ParseKey(key.Text() + "\n"); err != nil || got != key {
		t.Errorf("ParseKey() = %v, want the key", err)
	}
	for _, text := range []string{"", key.Text()[1:], key.Text()[:40], key.Text() + "A", key.Text() + "\n" + key.Text(), string(key[:])} {
		if _, err := ParseKey(text); err == nil || len(text) > 8 && strings.Contains(err.Error(), text[8:]) {
			t.Errorf("ParseKey(%q) = %v, want an error without the text", text, err)
		}
	}
}
