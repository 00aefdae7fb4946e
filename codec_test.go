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
		c := combiner[int]{add: Sum[int], value: &codec{}, emit: func(key []byte, v *int) {
			got[string(key)] += *v
			emitted++
		}}
		c.table.Begin(128 << 10)
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
	combine := combiner[[]byte]{add: func(_, b []byte) []byte { return b }, value: c}
	combine.table.Begin(1 << 20)
	for _, value := range []string{"one", "two"} {
		buf := []byte(value)
		combine.put([]byte("k"), buf)
		copy(buf, "six")
		for _, got := range combine.table.All() {
			if string(*got) != value {
				t.Errorf("value = %q, want %s", *got, value)
			}
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

// TestCombinerCountsValues: what values refer to is of the table too, also if the keys are few.
func TestCombinerCountsValues(t *testing.T) {
	const memory, size = 2 << 20, 100 << 10
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
		add:   func(a, b named) named { return named{a.n + b.n, a.text + b.text, append(a.data, b.data...)} },
		value: c,
		emit: func(_ []byte, v *named) {
			emitted += v.n
			bytes += len(v.text) + len(v.data)
		},
	}
	both.table.Begin(memory)
	for i := range 100 {
		both.put([]byte{byte(i % 3)}, named{1, strings.Repeat("x", size/2), make([]byte, size/2)})
		held := int64(0)
		for _, v := range both.table.All() {
			held += int64(len(v.text) + len(v.data))
		}
		if both.table.Refers != held || held > memory/2+size {
			t.Fatalf("the table refers to %d bytes of %d after %d pairs, want at most %d", both.table.Refers, held, i+1, memory/2)
		}
	}
	both.put(make([]byte, memory/4), named{n: 1})
	if n := both.table.Len(); n > 3 {
		t.Errorf("the table has %d keys: the long one is among them", n)
	}
	if both.flush(); emitted != 101 || bytes != 100*size || both.table.Refers != 0 {
		t.Errorf("%d pairs with %d bytes were emitted, want 101 with %d; the table refers to %d more", emitted, bytes, 100*size, both.table.Refers)
	}
}
