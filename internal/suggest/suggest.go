// Package suggest finds the name that a misspelt one was probably meant to be.
package suggest

import "strings"

// lengthMax bounds the cost of a comparison, in bytes; longer names match nothing.
const lengthMax = 64

// Closest returns the name with the smallest edit distance to given, ignoring case. It is empty if none differs in less than a
// third of given, leading dashes not counted, plus two letters.
func Closest(given string, names []string) string {
	if len(given) > lengthMax {
		return ""
	}
	closest, bound := "", len(strings.TrimLeft(given, "-"))/3+2
	for _, name := range names {
		if len(name) > lengthMax {
			continue
		}
		if d := distance(strings.ToLower(given), strings.ToLower(name)); d < bound {
			closest, bound = name, d
		}
	}
	return closest
}

// distance is the optimal string alignment distance (restricted Damerau-Levenshtein) of a and b, in bytes.
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
