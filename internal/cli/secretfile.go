package cli

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// secretFile is the annotation of a flag that names a file with a secret: what is before the name, such as @.
const secretFile = "secret file"

// markSecretFile lets the command warn if other users can read the file that a flag names after a mark.
func markSecretFile(cmd *cobra.Command, flag, mark string) {
	_ = cmd.Flags().SetAnnotation(flag, secretFile, []string{mark}) // the command has the flag
}

// warnOpenKeys warns of files with secrets that other users can read, unless they are mounted into a container, which decides who is in it.
func (a *app) warnOpenKeys(cmd *cobra.Command) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		mark := f.Annotations[secretFile]
		if mark == nil {
			return
		}
		for _, value := range valuesOf(f) {
			_, file, _ := strings.Cut(value, mark[0])
			if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o007 != 0 && !isMount(file) {
				a.stderr.Printf("warning: other users of this machine can read %s, which is a secret: chmod 600 %[1]s", file)
			}
		}
	})
}

// isMount reports whether a file is mounted by itself: it is on another file system than its folder.
func isMount(file string) bool {
	var own, folder unix.Stat_t
	return unix.Lstat(file, &own) == nil && unix.Lstat(filepath.Dir(file), &folder) == nil && own.Dev != folder.Dev
}
