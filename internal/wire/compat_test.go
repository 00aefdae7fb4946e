package wire_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/bridgefour/bridgefour/internal/wire"
)

// recordedProtocol is the folder of testdata/compat that holds what this program sends.
const recordedProtocol = "v0.7"

var record = flag.String("record", "", "write what this program sends to testdata/compat/`VERSION`, which must be new")

// sent are the messages that go over the wire by themselves.
func sent() map[string]proto.Message {
	return map[string]proto.Message{
		"from_worker": &wire.FromWorker{}, "to_worker": &wire.ToWorker{}, "log_records": &wire.LogRecords{}, "send_log_done": &wire.SendLogDone{},
		"parts_request": &wire.PartsRequest{}, "parts_page": &wire.PartsPage{}, "shadow_request": &wire.ShadowRequest{}, "shadow_state": &wire.ShadowState{},
		"token_request": &wire.TokenRequest{}, "token_holder": &wire.TokenHolder{},
		"refused_request": &wire.RefusedRequest{},
	}
}

// TestCompat reads the messages that released programs have sent: each must mean what it meant then. See
// testdata/compat/README.md.
func TestCompat(t *testing.T) {
	if *record != "" {
		writeRecording(t, filepath.Join("testdata", "compat", *record))
	}
	files, err := filepath.Glob("testdata/compat/v*/*.bin")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimPrefix(file, "testdata/compat/"), func(t *testing.T) {
			kind, _, _ := strings.Cut(filepath.Base(strings.TrimSuffix(file, ".bin")), "-")
			m, ok := sent()[kind]
			if !ok {
				t.Fatalf("there is no message %q any more", kind)
			}
			if err := proto.Unmarshal(readFile(t, file), m); err != nil {
				t.Fatal(err)
			}
			want := proto.Clone(m)
			proto.Reset(want)
			if err := prototext.Unmarshal(readFile(t, strings.TrimSuffix(file, ".bin")+".txt"), want); err != nil {
				t.Fatalf("a field that was sent has another name or type, or is gone: %v", err)
			}
			if !proto.Equal(m, want) {
				t.Errorf("it means something else now: %v\nthen: %v", prototext.Format(m), prototext.Format(want))
			}
		})
	}
}

// TestCompatIsRecorded: every field of every message is in the newest recording.
func TestCompatIsRecorded(t *testing.T) {
	dir := filepath.Join("testdata", "compat", recordedProtocol)
	for name, m := range recording() {
		got := proto.Clone(m)
		if err := proto.Unmarshal(readFile(t, filepath.Join(dir, name+".bin")), got); err != nil || !proto.Equal(got, m) {
			t.Errorf("%s is not what this program sends. If fields were added, and nothing was renumbered, record it as a new version: "+
				"go test ./internal/wire -run Compat -record VERSION", filepath.Join(dir, name+".bin"))
		}
	}
}

// recording is messages in which every field is set, with a value of its own: of those that carry one of several, one of each.
func recording() map[string]proto.Message {
	list := map[string]proto.Message{}
	for kind, m := range sent() {
		for variant := 0; ; variant++ {
			f := filler{variant: variant}
			m := proto.Clone(m)
			f.fill(m.ProtoReflect())
			list[fmt.Sprintf("%s-%d", kind, variant)] = m
			if variant+1 >= f.variants {
				break
			}
		}
	}
	// What a worker of before there were versions says.
	list["from_worker-first"] = &wire.FromWorker{Message: &wire.FromWorker_Hello{Hello: &wire.Hello{Identity: "i", Incarnation: "p", Slots: 1}}}
	return list
}

// filler sets the fields of messages.
type filler struct {
	next     uint64
	variant  int // which of each oneof
	variants int // the most that there are of one
}

func (f *filler) fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if one := fd.ContainingOneof(); one != nil {
			n := one.Fields().Len()
			f.variants = max(f.variants, n)
			if one.Fields().Get(f.variant%n) != fd {
				continue
			}
		}
		switch {
		case fd.IsMap():
			for range 2 { // one entry would do; two show that they are in order
				m.Mutable(fd).Map().Set(f.value(fd.MapKey()).MapKey(), f.value(fd.MapValue()))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range 2 {
				if fd.Message() != nil {
					f.fill(list.AppendMutable().Message())
				} else {
					list.Append(f.value(fd))
				}
			}
		case fd.Message() != nil:
			f.fill(m.Mutable(fd).Message())
		default:
			m.Set(fd, f.value(fd))
		}
	}
}

func (f *filler) value(fd protoreflect.FieldDescriptor) protoreflect.Value {
	f.next++
	switch fd.Kind() { //nolint:exhaustive // the default panics for a kind that the messages do not have yet
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("%s %d", fd.Name(), f.next))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{byte(f.next), 0xff})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(f.next))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(1<<63 | f.next)
	case protoreflect.Int64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(-int64(f.next))
	case protoreflect.EnumKind:
		values := fd.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(1 + int(f.next)%(values.Len()-1)).Number())
	default:
		panic(fmt.Sprintf("%s is a %v", fd.FullName(), fd.Kind()))
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// writeRecording writes a new recording. It never touches one that is there.
func writeRecording(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("a recording is never written again: %v", err)
	}
	for name, m := range recording() {
		text := prototext.MarshalOptions{Multiline: true}.Format(m)
		for file, data := range map[string][]byte{name + ".bin": marshal(t, m), name + ".txt": []byte(text)} {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("recorded in %s; now set recordedProtocol", dir)
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
