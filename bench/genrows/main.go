// Command genrows writes rows of text for benchmarks. The same arguments produce the same bytes.
//
//	go run ./bench/genrows sort 10000000 FILE       # records of 100 bytes, the first 90 of them random
//	go run ./bench/genrows count 100000000 FILE     # STATION;12.3 of 413 stations
//	go run ./bench/genrows left 10000000 FILE       # KEY<TAB>order<TAB>amount; a fifth of the keys is not in right
//	go run ./bench/genrows right 1000000 FILE       # KEY<TAB>customer<TAB>city, each of the keys once; a tenth as many as left has rows
package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "genrows:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	kinds := map[string]func(r *rand.Rand, n int) func(to []byte, i int) []byte{"sort": records, "count": stations, "left": orders, "right": customers}
	const want = "usage: genrows sort|count|left|right ROWS FILE"
	if len(args) != 3 || kinds[args[0]] == nil {
		return errors.New(want)
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 1 {
		return fmt.Errorf("invalid number of rows %q; "+want, args[1])
	}
	f, err := os.Create(args[2])
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // closed below
	w := bufio.NewWriterSize(f, 1<<20)
	row := kinds[args[0]](rand.New(rand.NewPCG(1, 2)), n)
	var line []byte
	for i := range n {
		line = append(row(line[:0], i), '\n')
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

func records(r *rand.Rand, _ int) func(to []byte, i int) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	return func(to []byte, _ int) []byte {
		for range 9 {
			for v, k := r.Uint64(), 0; k < 10; v, k = v>>6, k+1 {
				to = append(to, letters[v%64])
			}
		}
		return append(to, "xxxxxxxxx"...)
	}
}

func stations(r *rand.Rand, _ int) func(to []byte, i int) []byte {
	const count = 413
	names := make([]string, count)
	for i := range names {
		names[i] = string(rune('A'+i%26)) + []string{"ba", "nturi", "mun", "lonil Ces"}[i%4] + strconv.Itoa(i)
	}
	return func(to []byte, _ int) []byte {
		tenths := min(max(int(r.NormFloat64()*100)+150, -999), 999)
		to = append(append(to, names[r.IntN(count)]...), ';')
		if tenths < 0 {
			to, tenths = append(to, '-'), -tenths
		}
		to = strconv.AppendInt(to, int64(tenths/10), 10)
		return append(to, '.', byte('0'+tenths%10)) //nolint:gosec // a digit
	}
}

func orders(r *rand.Rand, n int) func(to []byte, i int) []byte {
	return func(to []byte, i int) []byte {
		return fmt.Appendf(to, "%d\torder%d\t%d", r.IntN(max(1, n/8)), i, r.IntN(100_000))
	}
}

func customers(r *rand.Rand, n int) func(to []byte, i int) []byte {
	keys := r.Perm(n)
	return func(to []byte, i int) []byte {
		return fmt.Appendf(to, "%d\tcustomer%d\tcity%d", keys[i], keys[i], keys[i]%1000)
	}
}
