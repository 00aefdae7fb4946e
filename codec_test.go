package bridgefour

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

type inner struct {
	b  bool
	i8 int8
	u  uint16
}

type outer struct {
	s    string
	in   inner
	f    float64
	none struct{}
	desc Desc[string]
	i    int64
	last string
}

func (o *outer) compare(p *outer) int {
	flag := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(o.s, p.s), cmp.Compare(flag(o.in.b), flag(p.in.b)), cmp.Compare(o.in.i8, p.in.i8), cmp.Compare(o.in.u, p.in.u),
		cmp.Compare(o.f, p.f), cmp.Compare(p.desc.Value, o.desc.Value), cmp.Compare(o.i, p.i), cmp.Compare(o.last, p.last))
}

func drawOuter(t *rapid.T) *outer {
	text := rapid.StringOfN(rapid.SampledFrom([]rune{0, 1, 'a', 'b', 0xff}), 0, 4, -1)
	f := rapid.OneOf(rapid.Float64(), rapid.SampledFrom([]float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1)}))
	return &outer{
		s: text.Draw(t, "s"), in: inner{rapid.Bool().Draw(t, "b"), rapid.Int8().Draw(t, "i8"), rapid.Uint16().Draw(t, "u")},
		f: f.Draw(t, "f"), desc: Desc[string]{text.Draw(t, "desc")}, i: rapid.Int64Range(-2, 2).Draw(t, "i"), last: text.Draw(t, "last"),
	}
}

// TestCodec: encoded values are what they were, and keys have the order of the values.
func TestCodec(t *testing.T) {
	c, err := codecOf[outer]()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawOuter(t), drawOuter(t)
		if rapid.Bool().Draw(t, "alike") {
			b.s, b.in, b.f = a.s, a.in, a.f
		}
		for _, end := range []bool{true, false} {
			x, y := c.key(nil, unsafe.Pointer(a), end), c.key(nil, unsafe.Pointer(b), end)
			if got, want := bytes.Compare(x, y), a.compare(b); got != want {
				t.Fatalf("keys %x and %x of %+v and %+v compare as %d, want %d", x, y, a, b, got, want)
			}
			rest := []byte("rest")
			if end {
				rest = nil
			}
			var key, value outer
			left, err := c.unkey(append(x, rest...), unsafe.Pointer(&key), end)
			if err != nil || key.compare(a) != 0 || !bytes.Equal(left, rest) {
				t.Fatalf("unkey(%x) = %+v, %q, %v, want %+v", x, key, left, err, a)
			}
			x = c.value(nil, unsafe.Pointer(a), end)
			left, err = c.unvalue(append(x, rest...), unsafe.Pointer(&value), end)
			if err != nil || value.compare(a) != 0 || !bytes.Equal(left, rest) {
				t.Fatalf("unvalue(%x) = %+v, %q, %v, want %+v", x, value, left, err, a)
			}
		}
	})
}

// FuzzDecode: no bytes make a decoder panic.
func FuzzDecode(f *testing.F) {
	c, err := codecOf[outer]()
	if err != nil {
		f.Fatal(err)
	}
	o := outer{s: "a\x00b", f: -1, last: "x"}
	f.Add(c.key(nil, unsafe.Pointer(&o), true))
	f.Add(c.value(nil, unsafe.Pointer(&o), true))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(_ *testing.T, from []byte) {
		var o outer
		_, _ = c.unkey(from, unsafe.Pointer(&o), true)
		_, _ = c.unvalue(from, unsafe.Pointer(&o), true)
		_, _ = c.unkey(from, unsafe.Pointer(&o), false)
		_, _ = c.unvalue(from, unsafe.Pointer(&o), false)
	})
}

func TestText(t *testing.T) {
	c, err := codecOf[outer]()
	if err != nil {
		t.Fatal(err)
	}
	o := outer{s: "x", in: inner{true, -5, 7}, f: 0.25, desc: Desc[string]{"d"}, i: 1 << 40, last: "l"}
	if got, want := string(c.text(nil, unsafe.Pointer(&o))), "x\ttrue\t-5\t7\t0.25\td\t1099511627776\tl"; got != want {
		t.Errorf("text() = %q, want %q", got, want)
	}
}

// TestCombiner compares sums with those of a map, at sizes at which the table is emptied often and passed by.
func TestCombiner(t *testing.T) {
	for _, distinct := range []int{1, 100, 5_000, 100_000} {
		got, want := map[string]int{}, map[string]int{}
		emitted := 0
		c := combiner[int]{table: newTable(Sum[int], &codec{}), sizeMax: 64 << 10, emit: func(key []byte, v *int) {
			got[string(key)] += *v
			emitted++
		}}
		for i := range 200_000 {
			key := fmt.Sprint(i * 7919 % distinct)
			want[key] += i
			c.put([]byte(key), i)
		}
		c.flush()
		for key, sum := range want {
			if got[key] != sum {
				t.Fatalf("%d keys: the sum of %s is %d, want %d", distinct, key, got[key], sum)
			}
		}
		if distinct <= 100 && emitted != distinct {
			t.Errorf("%d keys: %d pairs were emitted", distinct, emitted)
		}
	}
}

// TestCombinerOwnsBytes: values that borrow the buffer of a record are copied.
func TestCombinerOwnsBytes(t *testing.T) {
	c, err := codecOf[[]byte]()
	if err != nil {
		t.Fatal(err)
	}
	table := newTable(func(_, b []byte) []byte { return b }, c)
	buf := []byte("one")
	table.put([]byte("k"), buf)
	copy(buf, "two")
	if got := string(table.entries[0].value); got != "one" {
		t.Errorf("value = %q, want one", got)
	}
	table.put([]byte("k"), buf)
	copy(buf, "six")
	if got := string(table.entries[0].value); got != "two" {
		t.Errorf("value = %q, want two", got)
	}
}

// TestCombinerCountsValues: what values refer to is of the table too, also if the keys are few.
func TestCombinerCountsValues(t *testing.T) {
	const sizeMax, size = 1 << 20, 100 << 10
	type named struct {
		n    int
		text string
		data []byte
	}
	c, err := codecOf[named]()
	if err != nil {
		t.Fatal(err)
	}
	emitted, bytes := 0, 0
	both := combiner[named]{
		table:   newTable(func(a, b named) named { return named{a.n + b.n, a.text + b.text, append(a.data, b.data...)} }, c),
		sizeMax: sizeMax,
		emit: func(_ []byte, v *named) {
			emitted += v.n
			bytes += len(v.text) + len(v.data)
		},
	}
	for i := range 100 {
		both.put([]byte{byte(i % 3)}, named{1, strings.Repeat("x", size/2), make([]byte, size/2)})
		if held := both.table.memory(); held > sizeMax {
			t.Fatalf("the table has %d bytes after %d pairs, want at most %d", held, i+1, sizeMax)
		}
	}
	both.put(make([]byte, sizeMax/2), named{n: 1})
	if n := len(both.table.entries); n > 3 {
		t.Errorf("the table has %d keys: the long one is among them", n)
	}
	if both.flush(); emitted != 101 || bytes != 100*size || both.table.refers != 0 {
		t.Errorf("%d pairs with %d bytes were emitted, want 101 with %d; the table refers to %d more", emitted, bytes, 100*size, both.table.refers)
	}
}

func TestCombineDoesNotAllocate(t *testing.T) {
	c := combiner[int]{table: newTable(Sum[int], &codec{}), sizeMax: 1 << 20}
	keys := bytes.Fields([]byte(strings.Repeat("a few words of which each is there already ", 100)))
	fill := func() {
		for _, key := range keys {
			c.put(key, 1)
		}
	}
	fill()
	if n := testing.AllocsPerRun(10, fill); n > 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func BenchmarkCombine(b *testing.B) {
	c, err := codecsOf[[]byte, int64]()
	if err != nil {
		b.Fatal(err)
	}
	s := &sink[[]byte, int64]{codecs: c}
	table := newTable(Sum[int64], &codec{})
	keys := bytes.Fields([]byte(strings.Repeat("a few words of which each is there already ", 100)))
	b.SetBytes(int64(len(keys)))
	for b.Loop() {
		for _, key := range keys {
			table.put(s.encodeKey(key), 1)
		}
	}
}

func TestUnderscored(t *testing.T) {
	for name, want := range map[string]string{"MinLength": "min_length", "UserID": "user_id", "HTTPPort": "http_port", "X": "x", "Top10": "top10"} {
		if got := underscored(name); got != want {
			t.Errorf("underscored(%s) = %s, want %s", name, got, want)
		}
	}
}
