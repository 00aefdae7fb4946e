package blob_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bridgefour/bridgefour/internal/blob"
	"github.com/bridgefour/bridgefour/internal/blob/blobtest"
)

const nobody = 65534

// nobodysDir returns a folder of another user, and that user's store.
func nobodysDir(t *testing.T) (blob.Store, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can use files as another user")
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	must(t, os.Mkdir(dir+"/own", 0o700))
	must(t, os.Chown(dir+"/own", nobody, nobody))
	return blob.NewUserFiles(&syscall.Credential{Uid: nobody, Gid: nobody}), dir + "/own"
}

func TestUserFiles(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) (blob.Store, blob.Location) {
		t.Helper()
		s, dir := nobodysDir(t)
		return s, blob.Location(dir)
	})
}

// TestUserFilesRights: root's files are closed to the user, also where several goroutines use them, and what is created is the user's.
func TestUserFilesRights(t *testing.T) {
	s, dir := nobodysDir(t)
	own := blob.NewFiles()
	secret := blob.Location(filepath.Dir(dir)).Join("secret")
	blobtest.Put(t, own, secret.Join("file"), "of root")
	must(t, os.Chmod(string(secret), 0o711))
	must(t, os.Chmod(string(secret.Join("file")), 0o600))
	must(t, os.MkdirAll(string(secret.Join("closed/folder")), 0o700))
	link := blob.Location(filepath.Dir(dir)).Join("link")
	must(t, os.Symlink(string(secret.Join("closed/folder")), string(link)))
	ctx := t.Context()
	var names []blob.Location
	for i := range 1000 {
		names = append(names, secret.Join(fmt.Sprint(i)))
		must(t, os.WriteFile(string(names[i]), nil, 0o600))
	}
	for what, do := range map[string]func() error{
		"Open":           func() error { _, err := s.Open(ctx, secret.Join("file"), 0); return err },
		"Create":         func() error { _, err := s.Create(ctx, secret.Join("new"), ""); return err },
		"Publish":        func() error { return s.Publish(ctx, secret.Join("file"), blob.Location(dir).Join("stolen")) },
		"MkdirAll":       func() error { return s.MkdirAll(ctx, secret.Join("new")) },
		"MkdirAll, link": func() error { return s.MkdirAll(ctx, link.Join("new")) },
		"Remove":         func() error { return s.Remove(ctx, names...) },
		"RemoveAll":      func() error { return s.RemoveAll(ctx, secret) },
		"RemoveEmpty":    func() error { return s.RemoveEmpty(ctx, secret) },
		"Sync":           func() error { return s.Sync(ctx, names...) },
		"SyncDir":        func() error { return s.SyncDir(ctx, secret) },
		"CheckWritable":  func() error { return s.CheckWritable(ctx, secret.Join("new")) },
		"List": func() error {
			for _, err := range s.List(ctx, secret, nil, nil) {
				return err
			}
			return nil
		},
	} {
		if err := do(); !errors.Is(err, fs.ErrPermission) || what != "RemoveAll" && !strings.Contains(err.Error(), "permission denied for user 65534") {
			t.Errorf("%s of a file of root: %v, want permission denied for user 65534", what, err)
		}
	}
	name := blob.Location(dir).Join("a/b/file")
	blobtest.Put(t, s, name, "text")
	for _, path := range []blob.Location{name, name.Dir(), name.Dir().Dir()} {
		info, err := os.Stat(string(path))
		must(t, err)
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != nobody || st.Gid != nobody {
			t.Errorf("%s is of %+v, want %d", path, info.Sys(), nobody)
		}
	}
	if _, err := own.Open(context.Background(), secret.Join("file"), 0); err != nil {
		t.Errorf("this process has lost its rights: %v", err)
	}
}
