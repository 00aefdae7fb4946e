package bridgefour

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"unsafe"
)

// codec encodes the values of one type, which p points to. It is made once, by reflection; its functions do not reflect, and are for one goroutine.
//
// As a key, a value is encoded so that the order of the bytes is that of the values: numbers are big endian, with the sign changed so that
// negative ones come first, a text is as it is and ends with two zero bytes. As a value, it is encoded to be short: numbers as varints, a
// text with its length before it. If end is true, nothing follows, and a text needs neither end nor length.
type codec struct {
	key     func(to []byte, p unsafe.Pointer, end bool) []byte
	unkey   decoder
	value   func(to []byte, p unsafe.Pointer, end bool) []byte
	unvalue decoder
	// text is the value in a line of a part.
	text func(to []byte, p unsafe.Pointer) []byte
	// untext reads that. If end is true, it is the last in its line, and a text may contain tabs.
	untext decoder
	// own replaces what the value borrows, which is only valid until the next record, by copies. Nil: it borrows nothing.
	own func(p unsafe.Pointer)
	// size is the bytes that the value refers to. Nil: it refers to none.
	size func(p unsafe.Pointer) int
	// empty says that the type has one value, such as struct{}.
	empty bool
}

// decoder reads a value from the beginning of what is encoded, and returns the rest.
type decoder func(from []byte, p unsafe.Pointer, end bool) (rest []byte, err error)

var errCut = errors.New("an encoded value is cut: was it written by another version of this job?")

// codecOf returns the codec of T.
func codecOf[T any]() (*codec, error) { return codecOfType(reflect.TypeFor[T]()) }

// descending is implemented by Desc alone.
type descending interface{ descending() }

func codecOfType(t reflect.Type) (*codec, error) {
	switch t.Kind() { //nolint:exhaustive // the others have no codec
	case reflect.Bool:
		return boolCodec(), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return intCodec(t.Size()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return uintCodec(t.Size()), nil
	case reflect.Float32, reflect.Float64:
		return floatCodec(t.Size()), nil
	case reflect.String:
		return stringCodec(), nil
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return bytesCodec(), nil
		}
	case reflect.Struct:
		c, err := structCodec(t)
		if err == nil && t.Implements(reflect.TypeFor[descending]()) {
			return descCodec(c), nil
		}
		return c, err
	}
	return nil, fmt.Errorf("type %v cannot be a key or a value: use a string, []byte, bool, a number, or a struct of these", t)
}

var errFewColumns = errors.New("the line has too few columns")

// untext reads a column with parse.
func untext(parse func(text []byte, p unsafe.Pointer) error) decoder {
	return func(from []byte, p unsafe.Pointer, end bool) ([]byte, error) {
		if end {
			return nil, parse(from, p)
		}
		text, rest, found := bytes.Cut(from, []byte{'\t'})
		if !found {
			return nil, errFewColumns
		}
		return rest, parse(text, p)
	}
}

func boolCodec() *codec {
	encode := func(to []byte, p unsafe.Pointer, _ bool) []byte {
		if *(*bool)(p) {
			return append(to, 1)
		}
		return append(to, 0)
	}
	decode := func(from []byte, p unsafe.Pointer, _ bool) ([]byte, error) {
		if len(from) == 0 {
			return nil, errCut
		}
		*(*bool)(p) = from[0] != 0
		return from[1:], nil
	}
	return &codec{
		key: encode, unkey: decode, value: encode, unvalue: decode,
		text: func(to []byte, p unsafe.Pointer) []byte { return strconv.AppendBool(to, *(*bool)(p)) },
		untext: untext(func(text []byte, p unsafe.Pointer) (err error) {
			*(*bool)(p), err = strconv.ParseBool(string(text))
			return bare(err)
		}),
	}
}

// appendBig appends the last size bytes of v.
func appendBig(to []byte, v uint64, size uintptr) []byte {
	switch size {
	case 1:
		return append(to, byte(v))
	case 2:
		return binary.BigEndian.AppendUint16(to, uint16(v)) //nolint:gosec // the type has 16 bits
	case 4:
		return binary.BigEndian.AppendUint32(to, uint32(v)) //nolint:gosec // the type has 32 bits
	}
	return binary.BigEndian.AppendUint64(to, v)
}

func cutBig(from []byte, size uintptr) (v uint64, rest []byte, err error) {
	if uintptr(len(from)) < size {
		return 0, nil, errCut
	}
	for _, b := range from[:size] {
		v = v<<8 | uint64(b)
	}
	return v, from[size:], nil
}

func loadInt(p unsafe.Pointer, size uintptr) int64 {
	switch size {
	case 1:
		return int64(*(*int8)(p))
	case 2:
		return int64(*(*int16)(p))
	case 4:
		return int64(*(*int32)(p))
	}
	return *(*int64)(p)
}

// storeBits stores the last size bytes of v.
func storeBits(p unsafe.Pointer, size uintptr, v uint64) {
	switch size {
	case 1:
		*(*uint8)(p) = uint8(v) //nolint:gosec // the type has 8 bits
	case 2:
		*(*uint16)(p) = uint16(v) //nolint:gosec // the type has 16 bits
	case 4:
		*(*uint32)(p) = uint32(v) //nolint:gosec // the type has 32 bits
	default:
		*(*uint64)(p) = v
	}
}

func intCodec(size uintptr) *codec {
	sign := uint64(1) << (8*size - 1)
	return &codec{
		key: func(to []byte, p unsafe.Pointer, _ bool) []byte {
			return appendBig(to, uint64(loadInt(p, size))^sign, size) //nolint:gosec // the bits
		},
		unkey: func(from []byte, p unsafe.Pointer, _ bool) ([]byte, error) {
			v, rest, err := cutBig(from, size)
			storeBits(p, size, v^sign)
			return rest, err
		},
		value: func(to []byte, p unsafe.Pointer, _ bool) []byte { return binary.AppendVarint(to, loadInt(p, size)) },
		unvalue: func(from []byte, p unsafe.Pointer, _ bool) ([]byte, error) {
			v, n := binary.Varint(from)
			if n <= 0 {
				return nil, errCut
			}
			storeBits(p, size, uint64(v)) //nolint:gosec // the bits
			return from[n:], nil
		},
		text: func(to []byte, p unsafe.Pointer) []byte { return strconv.AppendInt(to, loadInt(p, size), 10) },
		untext: untext(func(text []byte, p unsafe.Pointer) error {
			v, err := strconv.ParseInt(string(text), 10, int(8*size)) //nolint:gosec // 8 to 64
			storeBits(p, size, uint64(v))                             //nolint:gosec // the bits
			return bare(err)
		}),
	}
}

func loadUint(p unsafe.Pointer, size uintptr) uint64 {
	switch size {
	case 1:
		return uint64(*(*uint8)(p))
	case 2:
		return uint64(*(*uint16)(p))
	case 4:
		return uint64(*(*uint32)(p))
	}
	return *(*uint64)(p)
}

func uintCodec(size uintptr) *codec {
	return &codec{
		key: func(to []byte, p unsafe.Pointer, _ bool) []byte { return appendBig(to, loadUint(p, size), size) },
		unkey: func(from []byte, p unsafe.Pointer, _ bool) ([]byte, error) {
			v, rest, err := cutBig(from, size)
			storeBits(p, size, v)
			return rest, err
		},
		value: func(to []byte, p unsafe.Pointer, _ bool) []byte { return binary.AppendUvarint(to, loadUint(p, size)) },
		unvalue: func(from []byte, p unsafe.Pointer, _ bool) ([]byte, error) {
			v, n := binary.Uvarint(from)
			if n <= 0 {
				return nil, errCut
			}
			storeBits(p, size, v)
			return from[n:], nil
		},
		text: func(to []byte, p unsafe.Pointer) []byte { return strconv.AppendUint(to, loadUint(p, size), 10) },
		untext: untext(func(text []byte, p unsafe.Pointer) error {
			v, err := strconv.ParseUint(string(text), 10, int(8*size)) //nolint:gosec // 8 to 64
			storeBits(p, size, v)
			return bare(err)
		}),
	}
}

// floatKey maps numbers to integers of the same order. NaN comes before all others, as for cmp.Compare, and the zeros are one.
func floatKey(v float64) uint64 {
	if v != v { //nolint:gocritic // NaN
		return 0
	}
	bits := math.Float64bits(v + 0) // -0 + 0 is 0
	if bits>>63 != 0 {
		return ^bits
	}
	return bits | 1<<63
}

func floatOfKey(bits uint64) float64 {
	switch {
	case bits == 0:
		return math.NaN()
	case bits>>63 != 0:
		return math.Float64frombits(bits &^ (1 << 63))
	}
	return math.Float64frombits(^bits)
}

func floatCodec(size uintptr) *codec {
	load := func(p unsafe.Pointer) float64 { return *(*float64)(p) }
	store := func(p unsafe.Pointer, v float64) { *(*float64)(p) = v }
	if size == 4 {
		load = func(p unsafe.Pointer) float64 { return float64(*(*float32)(p)) }
		store = func(p unsafe.Pointer, v float64) { *(*float32)(p) = float32(v) }
	}
	return &codec{
		key: func(to []byte, p unsafe.Pointer, _ bool) []byte {
			return binary.BigEndian.AppendUint64(to, floatKey(load(p)))
		},
		unkey: func(from []byte, p unsafe.Pointer, _ bool) ([]byte, error) {
			v, rest, err := cutBig(from, 8)
			store(p, floatOfKey(v))
			return rest, err
		},
		value: func(to []byte, p unsafe.Pointer, _ bool) []byte {
			return binary.LittleEndian.AppendUint64(to, math.Float64bits(load(p)))
		},
		unvalue: func(from []byte, p unsafe.Pointer, _ bool) ([]byte, error) {
			if len(from) < 8 {
				return nil, errCut
			}
			store(p, math.Float64frombits(binary.LittleEndian.Uint64(from)))
			return from[8:], nil
		},
		text: func(to []byte, p unsafe.Pointer) []byte {
			return strconv.AppendFloat(to, load(p), 'g', -1, int(8*size)) //nolint:gosec // 32 or 64
		},
		untext: untext(func(text []byte, p unsafe.Pointer) error {
			v, err := strconv.ParseFloat(string(text), int(8*size)) //nolint:gosec // 32 or 64
			store(p, v)
			return bare(err)
		}),
	}
}

// appendText appends a text as a key that something follows: a zero byte becomes 0 1, and 0 0 is the end, which is less than whatever a
// longer text has there.
func appendText[T string | []byte](to []byte, text T) []byte {
	for i := range len(text) {
		if to = append(to, text[i]); text[i] == 0 {
			to = append(to, 1)
		}
	}
	return append(to, 0, 0)
}

// cutText is the inverse of appendText.
func cutText(from []byte) (text, rest []byte, err error) {
	for i := 0; i+1 < len(from); i++ {
		switch {
		case from[i] != 0:
		case from[i+1] == 0:
			return unescape(from[:i]), from[i+2:], nil
		default:
			i++
		}
	}
	return nil, nil, errCut
}

// unescape returns text itself if it has no zero byte, which is usual.
func unescape(text []byte) []byte {
	var out []byte
	from := 0
	for i := 0; i < len(text); i++ {
		if text[i] == 0 {
			out = append(out, text[from:i+1]...)
			i++
			from = i + 1
		}
	}
	if out == nil {
		return text
	}
	return append(out, text[from:]...)
}

// cutSized cuts a text with its length before it.
func cutSized(from []byte, end bool) (text, rest []byte, err error) {
	if end {
		return from, nil, nil
	}
	size, n := binary.Uvarint(from)
	if n <= 0 || size > uint64(len(from)-n) { //nolint:gosec // n is at most the length
		return nil, nil, errCut
	}
	from = from[n:]
	return from[:size:size], from[size:], nil
}

// setString sets a string. One that is there stays, which costs no allocation: sorted pairs often have the same one.
func setString(p unsafe.Pointer, text []byte) {
	if s := (*string)(p); *s != string(text) {
		*s = string(text)
	}
}

func stringCodec() *codec {
	return &codec{
		key: func(to []byte, p unsafe.Pointer, end bool) []byte {
			if end {
				return append(to, *(*string)(p)...)
			}
			return appendText(to, *(*string)(p))
		},
		unkey: func(from []byte, p unsafe.Pointer, end bool) (rest []byte, err error) {
			text := from
			if !end {
				text, rest, err = cutText(from)
			}
			setString(p, text)
			return rest, err
		},
		value: func(to []byte, p unsafe.Pointer, end bool) []byte {
			s := *(*string)(p)
			if !end {
				to = binary.AppendUvarint(to, uint64(len(s)))
			}
			return append(to, s...)
		},
		unvalue: func(from []byte, p unsafe.Pointer, end bool) ([]byte, error) {
			text, rest, err := cutSized(from, end)
			setString(p, text)
			return rest, err
		},
		text: func(to []byte, p unsafe.Pointer) []byte { return append(to, *(*string)(p)...) },
		untext: untext(func(text []byte, p unsafe.Pointer) error {
			setString(p, text)
			return nil
		}),
		size: func(p unsafe.Pointer) int { return len(*(*string)(p)) },
	}
}

func bytesCodec() *codec {
	return &codec{
		key: func(to []byte, p unsafe.Pointer, end bool) []byte {
			if end {
				return append(to, *(*[]byte)(p)...)
			}
			return appendText(to, *(*[]byte)(p))
		},
		unkey: func(from []byte, p unsafe.Pointer, end bool) (rest []byte, err error) {
			text := from
			if !end {
				text, rest, err = cutText(from)
			}
			*(*[]byte)(p) = slices.Clip(text)
			return rest, err
		},
		value: func(to []byte, p unsafe.Pointer, end bool) []byte {
			b := *(*[]byte)(p)
			if !end {
				to = binary.AppendUvarint(to, uint64(len(b)))
			}
			return append(to, b...)
		},
		unvalue: func(from []byte, p unsafe.Pointer, end bool) ([]byte, error) {
			text, rest, err := cutSized(from, end)
			*(*[]byte)(p) = slices.Clip(text)
			return rest, err
		},
		text: func(to []byte, p unsafe.Pointer) []byte { return append(to, *(*[]byte)(p)...) },
		untext: untext(func(text []byte, p unsafe.Pointer) error {
			*(*[]byte)(p) = slices.Clip(text)
			return nil
		}),
		own:  func(p unsafe.Pointer) { *(*[]byte)(p) = append([]byte{}, *(*[]byte)(p)...) },
		size: func(p unsafe.Pointer) int { return len(*(*[]byte)(p)) },
	}
}

// fieldCodec is the codec of a field of a struct.
type fieldCodec struct {
	*codec
	at  uintptr
	end bool // it is the last one
}

// fieldsOf returns the codecs of the fields of a struct that have more than one value.
func fieldsOf(t reflect.Type) (fields []fieldCodec, err error) {
	for f := range t.Fields() {
		c, err := codecOfType(f.Type)
		if err != nil {
			return nil, fmt.Errorf("field %s of %v: %w", f.Name, t, err)
		}
		if !c.empty {
			fields = append(fields, fieldCodec{codec: c, at: f.Offset})
		}
	}
	if len(fields) > 0 {
		fields[len(fields)-1].end = true
	}
	return fields, nil
}

// referring makes c that of a struct whose fields refer to bytes, if some do.
func (c *codec) referring(fields []fieldCodec) {
	var own, size []fieldCodec
	for _, f := range fields {
		if f.own != nil {
			own = append(own, f)
		}
		if f.size != nil {
			size = append(size, f)
		}
	}
	if own != nil {
		c.own = func(p unsafe.Pointer) {
			for i := range own {
				own[i].own(unsafe.Add(p, own[i].at))
			}
		}
	}
	if size != nil {
		c.size = func(p unsafe.Pointer) (n int) {
			for i := range size {
				n += size[i].size(unsafe.Add(p, size[i].at))
			}
			return n
		}
	}
}

// decodeFields decodes the fields one after the other.
func decodeFields(fields []fieldCodec, of func(c *codec) decoder) decoder {
	decoders := make([]decoder, len(fields))
	for i := range fields {
		decoders[i] = of(fields[i].codec)
	}
	return func(from []byte, p unsafe.Pointer, end bool) (rest []byte, err error) {
		for i, decode := range decoders {
			if from, err = decode(from, unsafe.Add(p, fields[i].at), end && fields[i].end); err != nil {
				return nil, err
			}
		}
		return from, nil
	}
}

// structCodec encodes the fields one after the other; as text, with tabs between.
func structCodec(t reflect.Type) (*codec, error) {
	fields, err := fieldsOf(t)
	if err != nil {
		return nil, err
	}
	out := &codec{}
	out.referring(fields)
	out.empty = len(fields) == 0
	out.key = func(to []byte, p unsafe.Pointer, end bool) []byte {
		for i := range fields {
			to = fields[i].key(to, unsafe.Add(p, fields[i].at), end && fields[i].end)
		}
		return to
	}
	out.value = func(to []byte, p unsafe.Pointer, end bool) []byte {
		for i := range fields {
			to = fields[i].value(to, unsafe.Add(p, fields[i].at), end && fields[i].end)
		}
		return to
	}
	out.unkey = decodeFields(fields, func(c *codec) decoder { return c.unkey })
	out.unvalue = decodeFields(fields, func(c *codec) decoder { return c.unvalue })
	out.text = func(to []byte, p unsafe.Pointer) []byte {
		for i := range fields {
			if i > 0 {
				to = append(to, '\t')
			}
			to = fields[i].text(to, unsafe.Add(p, fields[i].at))
		}
		return to
	}
	out.untext = decodeFields(fields, func(c *codec) decoder { return c.untext })
	return out, nil
}

// Desc is a value whose order, as a key, is the inverse one: the greatest is first.
type Desc[T any] struct{ Value T }

func (Desc[T]) descending() {}

// descCodec inverts the bytes of a key, which has an end of its own: otherwise a text would come before those that it begins.
func descCodec(c *codec) *codec {
	out := *c
	out.key = func(to []byte, p unsafe.Pointer, _ bool) []byte {
		from := len(to)
		to = c.key(to, p, false)
		invert(to[from:])
		return to
	}
	var inverted []byte // the value may borrow it, until the next one is decoded
	out.unkey = func(from []byte, p unsafe.Pointer, _ bool) ([]byte, error) {
		inverted = append(inverted[:0], from...)
		invert(inverted)
		rest, err := c.unkey(inverted, p, false)
		return from[len(from)-len(rest):], err
	}
	return &out
}

func invert(b []byte) {
	for i := range b {
		b[i] = ^b[i]
	}
}
