package leader

// EntryBytesMax bounds a log entry. A message between leaders carries at least one entry and up to wire.MessageBytesMax (64 MiB), so each
// entry that is proposed can be sent. Entries are far smaller: they are full at entryBytes, a description of a job takes at most
// state.DescriptionBytesMax, and its input is staged. Only below feature level 2 is a whole input in one entry.
const EntryBytesMax = 16 << 20

// workBytesMax bounds a Work message, except for a single larger job, which is smaller than EntryBytesMax.
const workBytesMax = 16 << 20

// numberBytes bounds the size of a lease or job number in a message.
const numberBytes = 10

// leaseBytes bounds the size of a lease in a message without its path or line.
const leaseBytes = 112

// valueBytes is that of a value of an item, without the value.
const valueBytes = 12
