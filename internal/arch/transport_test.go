package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// openers open connections and listeners, or say how they are secured. Each may be used in one package, so that encryption is added
// there alone.
var openers = map[string]string{
	"net.Dial": "internal/transport", "net.DialTimeout": "internal/transport", "net.Dialer": "internal/transport",
	"net.Listen": "internal/transport", "net.ListenConfig": "internal/transport", "http.DefaultClient": "internal/transport",
	"http.Transport": "internal/transport", "grpc.NewClient": "internal/wire", "grpc.NewServer": "internal/wire",
	"insecure.NewCredentials": "internal/wire",
}

func TestConnectionsAreOpenedInOnePlace(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if name == "bench" { // it looks for free ports
			continue
		}
		for _, file := range p.GoFiles {
			for _, found := range openings(t, name, filepath.Join(p.Dir, file), nil) {
				t.Error(found)
			}
		}
	}
}

// openings returns what a file of a package may not use to open connections, and URLs that it writes.
func openings(t *testing.T, name, path string, src any) (found []string) {
	t.Helper()
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		what := ""
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok {
				what = x.Name + "." + n.Sel.Name
			}
			if in, ok := openers[what]; !ok || in == name {
				return true
			}
		case *ast.BasicLit:
			if n.Kind != token.STRING || !strings.HasPrefix(n.Value[1:], "http://") && !strings.HasPrefix(n.Value[1:], "https://") {
				return true
			}
			if what = n.Value; strings.Contains(what, "//json-schema.org/") { // a name, not an address
				return true
			}
		default:
			return true
		}
		found = append(found, fmt.Sprintf("%s: %s; use internal/transport or internal/wire", fset.Position(n.Pos()), what))
		return true
	})
	return found
}

func TestOpeningsAreFound(t *testing.T) {
	src := `package p
var u = "http://" + address
func f() {
	net.Dial("tcp", "a:1")
	grpc.NewClient("x", grpc.WithTransportCredentials(insecure.NewCredentials()))
	fmt.Println("want http://host:port")
}`
	var got []string
	for _, s := range openings(t, "p", "p.go", src) {
		what, _, _ := strings.Cut(s[strings.Index(s, ": ")+2:], ";")
		got = append(got, what)
	}
	if want := []string{`"http://"`, "net.Dial", "grpc.NewClient", "insecure.NewCredentials"}; !slices.Equal(got, want) {
		t.Errorf("openings() = %q, want %q", got, want)
	}
}
