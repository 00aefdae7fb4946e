package state

import (
	"bytes"
	"compress/flate"
	linked "container/list"
	"io"
	"math"
	"slices"
)

const (
	// blocksBytes is what a reader of an input keeps of the blocks of a list, unless it shares a BlockCache.
	blocksBytes = 32 << 20
	// blockOfValuesBytes is roughly the memory of a decoded block beside its text.
	blockOfValuesBytes = 256
)

// BlockCache keeps decoded blocks of lists, those that were used last, up to a number of bytes: a shuffled list is read in no order, and a product
// reads its lists in turns. Several readers may share one. Not for concurrent use.
type BlockCache struct {
	max, bytes int
	used       *linked.List // of *blockOfValues, the last used first
	blocks     map[*byte]*linked.Element

	source  bytes.Reader
	inflate io.Reader // nil: not used yet. A flate reader takes 40 KiB
	text    bytes.Buffer
	starts  []uint32
}

// blockOfValues is a decoded block of a list.
type blockOfValues struct {
	key    *byte // where its compressed data begins: blocks never change. A pointer to the input would keep all of that
	text   []byte
	starts []uint32 // of the values in it, each behind its length
}

// NewBlockCache returns a cache of so many bytes; the block that was used last is in it whatever its size.
func NewBlockCache(bytesMax int) *BlockCache {
	return &BlockCache{max: bytesMax, used: linked.New(), blocks: map[*byte]*linked.Element{}}
}

// NewReader is NewInputReader, whose reader shares the cache.
func (c *BlockCache) NewReader(in *Input) *InputReader {
	return &InputReader{in: in, block: -1, cache: c}
}

// get returns the values of a block.
func (c *BlockCache) get(data []byte) (*blockOfValues, error) {
	if len(data) == 0 {
		return nil, errBlock
	}
	if e := c.blocks[&data[0]]; e != nil {
		c.used.MoveToFront(e)
		return e.Value.(*blockOfValues), nil //nolint:forcetypeassert // nothing else is in the list
	}
	b, err := c.decode(data)
	if err != nil {
		return nil, err
	}
	c.blocks[b.key] = c.used.PushFront(b)
	for c.bytes += b.size(); c.bytes > c.max && c.used.Len() > 1; {
		oldest := c.used.Remove(c.used.Back()).(*blockOfValues) //nolint:forcetypeassert // as above
		delete(c.blocks, oldest.key)
		c.bytes -= oldest.size()
	}
	return b, nil
}

func (c *BlockCache) decode(data []byte) (*blockOfValues, error) {
	c.source.Reset(data)
	if c.inflate == nil {
		c.inflate = flate.NewReader(&c.source)
	} else if err := c.inflate.(flate.Resetter).Reset(&c.source, nil); err != nil { //nolint:forcetypeassert // documented
		return nil, err
	}
	c.text.Reset()
	c.starts = c.starts[:0]
	if _, err := c.text.ReadFrom(io.LimitReader(c.inflate, math.MaxUint32)); err != nil {
		return nil, err
	}
	b := &blockOfValues{key: &data[0], text: bytes.Clone(c.text.Bytes())}
	for rest := b.text; len(rest) > 0; {
		c.starts = append(c.starts, uint32(len(b.text)-len(rest)))
		var err error
		if _, rest, err = cutBytes(rest); err != nil {
			return nil, err
		}
	}
	b.starts = slices.Clone(c.starts)
	return b, nil
}

func (b *blockOfValues) size() int { return len(b.text) + 4*len(b.starts) + blockOfValuesBytes }

// value returns value i of the block.
func (b *blockOfValues) value(i uint64) ([]byte, error) {
	if i >= uint64(len(b.starts)) {
		return nil, errBlock
	}
	v, _, err := cutBytes(b.text[b.starts[i]:])
	return v, err
}
