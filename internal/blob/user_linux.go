package blob

import (
	"context"
	"iter"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// userFiles is Files as another user has them: what that user may not do there fails, and what is created is that user's. Only root can
// use it. Its methods run on threads that have the user's identity for file systems, which also takes root's rights over files away.
type userFiles struct {
	Files

	user *syscall.Credential
}

// NewUserFiles returns the store of the local file systems as that user has them. The process must be root's.
func NewUserFiles(user *syscall.Credential) Store { return &userFiles{user: user} }

type userKey struct{}

// as calls f as the user, and passes a context with which inContext does the same in other goroutines.
func (s *userFiles) as(ctx context.Context, f func(ctx context.Context)) {
	ctx = context.WithValue(ctx, userKey{}, s.user)
	inContext(ctx, func() { f(ctx) })
}

// inContext calls f as the user of the context, if it has one. It can be nested.
func inContext(ctx context.Context, f func()) {
	user, ok := ctx.Value(userKey{}).(*syscall.Credential)
	if !ok || fsUser() == int(user.Uid) {
		f()
		return
	}
	runtime.LockOSThread()
	own, err := unix.Getgroups()
	if err == nil {
		err = become(user.Uid, user.Gid, user.Groups)
	}
	defer func() {
		groups := make([]uint32, len(own))
		for i, g := range own {
			groups[i] = uint32(g) //nolint:gosec // of the kernel
		}
		if become(uint32(os.Geteuid()), uint32(os.Getegid()), groups) == nil { //nolint:gosec // of the kernel
			runtime.UnlockOSThread() // otherwise the thread ends with the goroutine
		}
	}()
	if err != nil {
		panic("become another user: " + err.Error()) // root can
	}
	f()
}

// become changes the identity of this thread for file systems. The functions of package syscall would change all threads.
func become(uid, gid uint32, groups []uint32) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups))), 0); errno != 0 {
		return errno
	}
	unix.Setfsgid(int(gid)) //nolint:errcheck // it returns the earlier one: see below
	unix.Setfsuid(int(uid)) //nolint:errcheck // as above
	if fsUser() != int(uid) {
		return unix.EPERM
	}
	return nil
}

// fsUser returns the user of this thread for file systems.
func fsUser() int {
	uid, _ := unix.SetfsuidRetUid(-1)
	return uid
}

func (s *userFiles) Stat(ctx context.Context, name Location) (info Info, err error) {
	s.as(ctx, func(ctx context.Context) { info, err = s.Files.Stat(ctx, name) })
	return info, err
}

func (s *userFiles) List(ctx context.Context, dir Location, keep Keep, linked Linked) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		s.as(ctx, func(ctx context.Context) { s.Files.List(ctx, dir, keep, linked)(yield) })
	}
}

func (s *userFiles) Open(ctx context.Context, name Location, offset int64) (f File, err error) {
	s.as(ctx, func(ctx context.Context) { f, err = s.Files.Open(ctx, name, offset) })
	return f, err
}

func (s *userFiles) Create(ctx context.Context, private, final Location) (w Writer, err error) {
	s.as(ctx, func(ctx context.Context) { w, err = s.Files.Create(ctx, private, final) })
	if err != nil {
		return nil, err
	}
	return &userWriter{w, s, context.WithoutCancel(ctx)}, nil
}

func (s *userFiles) Sync(ctx context.Context, names ...Location) (err error) {
	s.as(ctx, func(ctx context.Context) { err = s.Files.Sync(ctx, names...) })
	return err
}

func (s *userFiles) Publish(ctx context.Context, private, final Location) (err error) {
	s.as(ctx, func(ctx context.Context) { err = s.Files.Publish(ctx, private, final) })
	return err
}

func (s *userFiles) SyncDir(ctx context.Context, dir Location) (err error) {
	s.as(ctx, func(ctx context.Context) { err = s.Files.SyncDir(ctx, dir) })
	return err
}

func (s *userFiles) Resolve(ctx context.Context, name Location) (resolved Location) {
	s.as(ctx, func(ctx context.Context) { resolved = s.Files.Resolve(ctx, name) })
	return resolved
}

func (s *userFiles) CheckWritable(ctx context.Context, dir Location) (err error) {
	s.as(ctx, func(ctx context.Context) { err = s.Files.CheckWritable(ctx, dir) })
	return err
}

func (s *userFiles) MkdirAll(ctx context.Context, dir Location) (err error) {
	s.as(ctx, func(ctx context.Context) { err = s.Files.MkdirAll(ctx, dir) })
	return err
}

func (s *userFiles) Remove(ctx context.Context, names ...Location) (err error) {
	s.as(ctx, func(ctx context.Context) { err = s.Files.Remove(ctx, names...) })
	return err
}

func (s *userFiles) RemoveAll(ctx context.Context, dir Location) (err error) {
	s.as(ctx, func(ctx context.Context) { err = s.Files.RemoveAll(ctx, dir) })
	return err
}

func (s *userFiles) RemoveEmpty(ctx context.Context, dir Location) (err error) {
	s.as(ctx, func(ctx context.Context) { err = s.Files.RemoveEmpty(ctx, dir) })
	return err
}

// LockDir implements Locker.
func (s *userFiles) LockDir(ctx context.Context, dir Location) (unlock func(), err error) {
	s.as(ctx, func(ctx context.Context) { unlock, err = s.Files.LockDir(ctx, dir) })
	return unlock, err
}

// userWriter ends a file as the user.
type userWriter struct {
	Writer

	store *userFiles
	ctx   context.Context //nolint:containedctx // of Create, without its end; Writer has none
}

func (w *userWriter) Commit() (err error) {
	w.store.as(w.ctx, func(context.Context) { err = w.Writer.Commit() })
	return err
}

func (w *userWriter) Prepare() (err error) {
	w.store.as(w.ctx, func(context.Context) { err = w.Writer.Prepare() })
	return err
}

func (w *userWriter) Abort() {
	w.store.as(w.ctx, func(context.Context) { w.Writer.Abort() })
}
