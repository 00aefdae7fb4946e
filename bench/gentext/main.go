// Command gentext writes English-like text for benchmarks: words of an invented vocabulary with the frequencies of Zipf's law, in sentences
// and lines of ordinary length. The same flags produce the same bytes.
//
//	go run ./bench/gentext -dir /tmp/text -size 1073741824 -files 16
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("dir", "", "folder for text-NN.txt")
	size := flag.Int64("size", 1<<30, "bytes in all files together")
	files := flag.Int("files", 16, "number of files")
	seed := flag.Uint64("seed", 1, "another seed, another text")
	words := flag.Int("words", 100_000, "size of the vocabulary")
	flag.Parse()
	if err := generate(*dir, *size, *files, *words, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "gentext:", err)
		os.Exit(1)
	}
}

func generate(dir string, size int64, files, words int, seed uint64) error {
	if dir == "" || files < 1 || words < 2 {
		return errors.New("usage: gentext -dir DIR [-size BYTES] [-files N] [-words N] [-seed N]")
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	vocabulary := makeVocabulary(rand.New(rand.NewPCG(seed, 0)), words)
	for i := range files {
		share := size/int64(files) + min(1, max(0, size%int64(files)-int64(i)))
		path := filepath.Join(dir, fmt.Sprintf("text-%02d.txt", i))
		if err := writeText(path, share, vocabulary, rand.New(rand.NewPCG(seed, uint64(i)+1))); err != nil {
			return err
		}
	}
	return nil
}

// makeVocabulary makes distinct words of syllables; frequent words are short.
func makeVocabulary(r *rand.Rand, size int) []string {
	onsets := []string{"", "b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "th", "tr", "ch"}
	vowels := []string{"a", "e", "i", "o", "u", "a", "e", "i", "o", "ea", "ou"}
	codas := []string{"", "", "", "", "n", "r", "s", "t", "l", "d", "nd", "ng"}
	known := make(map[string]bool, size)
	list := make([]string, 0, size)
	for len(list) < size {
		syllables := 1
		for limit := 300; len(list) > limit && syllables < 5 && r.IntN(4) > 0; limit *= 7 {
			syllables++
		}
		var letters []byte
		for range syllables {
			for _, sounds := range [][]string{onsets, vowels, codas} {
				letters = append(letters, sounds[r.IntN(len(sounds))]...)
			}
		}
		if word := string(letters); !known[word] {
			known[word] = true
			list = append(list, word)
		}
	}
	return list
}

func writeText(path string, size int64, vocabulary []string, r *rand.Rand) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(file, 1<<20)
	const skew, flat, lineWidth = 1.1, 2.7, 72
	zipf := rand.NewZipf(r, skew, flat, uint64(len(vocabulary)-1))
	var word []byte
	begin, column := true, 0
	for written := int64(0); written < size; {
		word = append(word[:0], vocabulary[zipf.Uint64()]...)
		if begin {
			word[0] -= 'a' - 'A'
		}
		begin = false
		switch n := r.IntN(100); {
		case n < 5:
			word = append(word, '.')
			begin = true
		case n < 12:
			word = append(word, ',')
		case n < 13:
			word = append(word, '?')
			begin = true
		}
		column += len(word) + 1
		if column > lineWidth {
			word, column = append(word, '\n'), 0
		} else {
			word = append(word, ' ')
		}
		if rest := size - written; int64(len(word)) > rest {
			word = word[:rest]
			word[rest-1] = '\n'
		}
		n, err := out.Write(word)
		if err != nil {
			return errors.Join(err, file.Close())
		}
		written += int64(n)
	}
	return errors.Join(out.Flush(), file.Close())
}
