package jobs

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"
)

// number is an exact decimal number: units of 1e-9, in two's complement. Sums of it do not depend on the order in which they are made.
type number struct {
	high int64
	low  uint64
}

const decimalsMax = 9

// powers of ten, by decimals.
var scales = [decimalsMax + 1]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9} //nolint:gochecknoglobals // a constant

// parseNumber parses a decimal number with at most 18 digits, of which 9 follow the point.
func parseNumber(text []byte) (number, error) {
	digits, rest := text, uint64(0)
	negative := false
	if len(digits) > 0 && (digits[0] == '-' || digits[0] == '+') {
		negative, digits = digits[0] == '-', digits[1:]
	}
	seen, point := 0, -1
	for i, b := range digits {
		switch {
		case b >= '0' && b <= '9':
			if rest = rest*10 + uint64(b-'0'); rest > 0 {
				seen++
			}
			if seen > 18 {
				return number{}, fmt.Errorf("%q has more than 18 digits", text)
			}
		case b == '.' && point < 0:
			point = i
		default:
			return number{}, fmt.Errorf("%q is not a decimal number", text)
		}
	}
	decimals := 0
	if point >= 0 {
		decimals = len(digits) - point - 1
	}
	switch {
	case len(digits) == 0 || point >= 0 && len(digits) == 1:
		return number{}, fmt.Errorf("%q is not a decimal number", text)
	case decimals > decimalsMax:
		return number{}, fmt.Errorf("%q has more than %d decimals", text, decimalsMax)
	}
	high, low := bits.Mul64(rest, scales[decimalsMax-decimals])
	n := number{int64(high), low} //nolint:gosec // below 2³⁰
	if negative {
		return n.negated(), nil
	}
	return n, nil
}

func (n number) negated() number {
	low, borrow := bits.Sub64(0, n.low, 0)
	return number{-n.high - int64(borrow), low} //nolint:gosec // 0 or 1
}

func (n number) plus(m number) number {
	low, carry := bits.Add64(n.low, m.low, 0)
	return number{n.high + m.high + int64(carry), low} //nolint:gosec // 0 or 1
}

func (n number) compare(m number) int {
	if n.high != m.high {
		return cmp.Compare(n.high, m.high)
	}
	return cmp.Compare(n.low, m.low)
}

func (n number) big() *big.Int {
	b := new(big.Int).Lsh(big.NewInt(n.high), 64)
	return b.Add(b, new(big.Int).SetUint64(n.low))
}

// over is n divided by count, rounded half away from zero at the last decimal.
func (n number) over(count uint64) number {
	b, c := n.big(), new(big.Int).SetUint64(count)
	half := new(big.Int).Rsh(c, 1)
	if b.Sign() < 0 {
		half.Neg(half)
	}
	b.Quo(b.Add(b, half), c)
	low := new(big.Int).And(b, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
	return number{new(big.Int).Rsh(b, 64).Int64(), low}
}

// appendTo appends the number without zeros at the end.
func (n number) appendTo(to []byte) []byte {
	if n.high < 0 {
		to, n = append(to, '-'), n.negated()
	}
	var whole, part uint64
	if n.high == 0 || uint64(n.high) < scales[decimalsMax] { //nolint:gosec // not negative
		whole, part = bits.Div64(uint64(n.high), n.low, scales[decimalsMax]) //nolint:gosec // not negative
		to = strconv.AppendUint(to, whole, 10)
	} else {
		w, p := new(big.Int).QuoRem(n.big(), new(big.Int).SetUint64(scales[decimalsMax]), new(big.Int))
		to, part = w.Append(to, 10), p.Uint64()
	}
	if part == 0 {
		return to
	}
	to = append(to, '.')
	for i := decimalsMax - 1; i >= 0 && part > 0; i-- {
		to = append(to, '0'+byte(part/scales[i]))
		part %= scales[i]
	}
	return to
}
