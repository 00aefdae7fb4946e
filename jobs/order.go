package jobs

import (
	"bytes"
	"errors"
)

var errCut = errors.New("an encoded key is cut: was it written by another version of this job?")

// appendOrdered appends a text so that the bytes, also with others after them, have the order of the text: a zero byte becomes 0 1, and 0 0 is the end.
func appendOrdered(to, text []byte) []byte {
	for {
		at := bytes.IndexByte(text, 0)
		if at < 0 {
			return append(append(to, text...), 0, 0)
		}
		to = append(append(to, text[:at+1]...), 1)
		text = text[at+1:]
	}
}

// cutOrdered appends the text that appendOrdered has encoded; others may follow it.
func cutOrdered(to, from []byte) ([]byte, error) {
	for {
		at := bytes.IndexByte(from, 0)
		if at < 0 || at+1 == len(from) {
			return nil, errCut
		}
		to = append(to, from[:at]...)
		if from[at+1] == 0 {
			return to, nil
		}
		to, from = append(to, 0), from[at+2:]
	}
}

// orderedText is the encoded text that a key begins with.
func orderedText(key []byte) []byte {
	for at := 0; ; at += 2 {
		next := bytes.IndexByte(key[at:], 0)
		if at += next; next < 0 || at+1 == len(key) {
			return key // it is cut
		}
		if key[at+1] == 0 {
			return key[:at+2]
		}
	}
}

// appendNumber appends the number at the beginning of a text so that the bytes, also with others after them, have the order of the numbers, as sort -n compares them:
// blanks, a minus sign, digits, a point, digits; any number of digits. A text without a number is 0.
//
// The first byte is 0x80 for 0 and greater for positive numbers, by how many digits they have before the point: up to 99 in the byte, more in 4 bytes after
// it. The digits follow in pairs, each as its number plus 1, without leading zeros and with trailing ones up to a pair, and a 0. Of a negative number, the
// bytes are those of the positive one, inverted.
func appendNumber(to, text []byte) []byte {
	const (
		zero      = 0x80
		wholeMost = 99
	)
	text = bytes.TrimLeft(text, " \t")
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		text = text[1:]
	}
	whole := digits(text)
	var fraction []byte
	if len(text) > len(whole) && text[len(whole)] == '.' {
		fraction = bytes.TrimRight(digits(text[len(whole)+1:]), "0")
	}
	whole = bytes.TrimLeft(whole, "0")
	size := len(whole)
	if len(fraction) == 0 {
		whole = bytes.TrimRight(whole, "0")
	}
	if len(whole)+len(fraction) == 0 {
		return append(to, zero)
	}
	from := len(to)
	if size <= wholeMost {
		to = append(to, byte(zero+1+size))
	} else {
		to = append(to, zero+wholeMost+2, byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
	}
	high, odd := byte(0), false
	for _, part := range [2][]byte{whole, fraction} {
		for _, d := range part {
			if odd = !odd; odd {
				high = (d - '0') * 10
			} else {
				to = append(to, high+d-'0'+1)
			}
		}
	}
	if odd {
		to = append(to, high+1)
	}
	to = append(to, 0)
	if negative {
		invert(to[from:])
	}
	return to
}

// digits are those at the beginning of a text.
func digits(text []byte) []byte {
	n := 0
	for n < len(text) && text[n]-'0' <= 9 {
		n++
	}
	return text[:n]
}

func invert(b []byte) {
	for i := range b {
		b[i] = ^b[i]
	}
}
