package pages

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// advise asks for huge pages for as much of memory as fills them. On an error, which means that the kernel has none, it has ordinary ones.
func advise(memory []byte) {
	whole := memory[toHuge(unsafe.Pointer(unsafe.SliceData(memory))):]
	_ = unix.Madvise(whole[:len(whole)&^(hugeBytes-1)], unix.MADV_HUGEPAGE)
}
