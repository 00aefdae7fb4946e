package jobs

import (
	"bytes"
	"crypto/md5"  //nolint:gosec // of others' making
	"crypto/sha1" //nolint:gosec // of others' making
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"

	b4 "github.com/bridgefour/bridgefour"
)

type bruteForceConfig struct {
	Hash      string `b4:"hash,required" help:"the hash, in hexadecimal digits"`
	Algorithm string `b4:"algorithm,default=sha256" help:"md5, sha1, sha256 or sha512"`
	Alphabet  string `b4:"alphabet,default=abcdefghijklmnopqrstuvwxyz" help:"bytes that a text may have"`
	Chunk     uint64 `b4:"chunk,default=10000000" help:"texts of each number of --range"`
}

// BruteForce searches the text of a hash. Texts are numbered: the empty one is 0, those of one byte follow, then those of two. Number N of the range tries
// chunk texts from N × chunk on. A task tries its numbers up to one with the text, and fails if none has it; the first task that finds it ends the job.
func BruteForce() b4.Job {
	return b4.New("bruteforce", bruteForce, b4.FirstSuccess(), b4.Summary("search the text of a hash; ends at the first success"), b4.RecordKinds(lineKinds()...),
		b4.Example("--range 0-999 --set hash=fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603"))
}

func bruteForce(cfg bruteForceConfig) (b4.Output, error) {
	want, err := hex.DecodeString(cfg.Hash)
	if err != nil {
		return nil, fmt.Errorf("invalid setting hash=%q: want hexadecimal digits", cfg.Hash)
	}
	sum, size := digest(cfg.Algorithm)
	switch {
	case sum == nil:
		return nil, fmt.Errorf("invalid setting algorithm=%q: want md5, sha1, sha256 or sha512", cfg.Algorithm)
	case len(want) != size:
		return nil, fmt.Errorf("invalid setting hash=%q: a hash of %s has %d hexadecimal digits", cfg.Hash, cfg.Algorithm, 2*size)
	case cfg.Alphabet == "":
		return nil, errors.New("invalid setting alphabet=\"\": want at least one byte")
	case cfg.Chunk == 0:
		return nil, errors.New("invalid setting chunk=0: want at least 1")
	}
	search := textSearch{bruteForceConfig: cfg, sum: sum, want: want}
	return b4.Map(b4.Splits(), search.task), nil
}

// textSearch tries texts.
type textSearch struct {
	bruteForceConfig
	sum  func(to, text []byte) []byte
	want []byte
}

// task tries the numbers of a task, which may be in several files, up to one with the text.
func (s *textSearch) task(t *b4.Task, _ struct{}, emit b4.Emit[string, string]) error {
	var numbers, first uint64
	for more := true; more; more = t.NextInput() {
		for records := t.Records(); records.Scan(); numbers++ {
			number, err := strconv.ParseUint(string(records.Bytes()), 10, 64)
			if err != nil || number >= math.MaxUint64/s.Chunk {
				return b4.BadInput(fmt.Errorf("item %q: want a number from 0 to %d, as of --range", records.Bytes(), math.MaxUint64/s.Chunk-1))
			}
			switch text, found, err := s.texts(t, number*s.Chunk); {
			case err != nil:
				return err
			case found:
				emit(s.Hash, string(text))
				for t.NextInput() { // the files that are left need no search
				}
				return nil
			}
			if numbers == 0 {
				first = number
			}
		}
		if err := t.Records().Err(); err != nil {
			return err
		}
	}
	switch from := first * s.Chunk; numbers {
	case 0:
		return b4.BadInput(errors.New("the input has no number of texts to try"))
	case 1:
		return b4.BadInput(fmt.Errorf("none of the texts %q to %q has the hash", candidate(nil, s.Alphabet, from), candidate(nil, s.Alphabet, from+s.Chunk-1)))
	}
	return b4.BadInput(fmt.Errorf("none of the texts of its %d numbers, the first of which is %d, has the hash", numbers, first))
}

// texts tries the texts of a number, from one on.
func (s *textSearch) texts(t *b4.Task, from uint64) (text []byte, found bool, err error) {
	text = candidate(nil, s.Alphabet, from)
	var got []byte
	for i := range s.Chunk {
		if got = s.sum(got[:0], text); bytes.Equal(got, s.want) {
			return text, true, nil
		}
		if i%(1<<16) == 0 && t.Context().Err() != nil {
			return nil, false, t.Context().Err()
		}
		text = candidate(text[:0], s.Alphabet, from+i+1)
	}
	return nil, false, nil
}

// candidate appends the text of a number, in bijective base len(alphabet), the last byte first.
func candidate(to []byte, alphabet string, n uint64) []byte {
	for base := uint64(len(alphabet)); n > 0; n /= base {
		n--
		to = append(to, alphabet[n%base])
	}
	return to
}

// digest is the function of a name, which appends the hash of a text, and the size of its hashes.
func digest(name string) (sum func(to, text []byte) []byte, size int) {
	switch name {
	case "md5":
		return func(to, text []byte) []byte { h := md5.Sum(text); return append(to, h[:]...) }, md5.Size //nolint:gosec // as above
	case "sha1":
		return func(to, text []byte) []byte { h := sha1.Sum(text); return append(to, h[:]...) }, sha1.Size //nolint:gosec // as above
	case "sha256":
		return func(to, text []byte) []byte { h := sha256.Sum256(text); return append(to, h[:]...) }, sha256.Size
	case "sha512":
		return func(to, text []byte) []byte { h := sha512.Sum512(text); return append(to, h[:]...) }, sha512.Size
	}
	return nil, 0
}
