package pbtxt

import (
	"fmt"
	"strings"
	"testing"
)

// show writes a message in one line.
func show(m *Message) string {
	var all []string
	for _, f := range m.Fields {
		v := f.Value.Text
		if f.Value.String {
			v = fmt.Sprintf("%q", v)
		}
		if f.Value.Message != nil {
			v = "{" + show(f.Value.Message) + "}"
		}
		all = append(all, fmt.Sprintf("%s@%d=%s", f.Name, f.Line, v))
	}
	return strings.Join(all, " ")
}

func TestParse(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		m, err := Parse([]byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := show(m); got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", text, got, want)
		}
	}
	f("", "")
	f("# nothing\n", "")
	f("name: \"a\"\nmax_batch_size: 8", `name@1="a" max_batch_size@2=8`)
	f("dims: [ 3, 224 ,224 ], dims: -1;", "dims@1=3 dims@1=224 dims@1=224 dims@1=-1")
	f("dims: []", "")
	f("input [\n  { name: 'x' },\n  < name: 'y' >\n]", `input@2={name@2="x"} input@3={name@3="y"}`)
	f("a { b { c: true } } d {}", "a@1={b@1={c@1=true}} d@1={}")
	f("a: { b: 1.5e-3 } # end", "a@1={b@1=1.5e-3}")
	f(`s: "a" 'b' "\n\x41\101é\""`, `s@1="ab\nAAé\""`)
	f("f: - 1 g: 0x1F h: -inf", "f@1=-1 g@1=0x1F h@1=-inf")
}

func TestParseSaysWhatIsWrongAndWhere(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		m, err := Parse([]byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v, %v; want %q", text, m, err, want)
		}
	}
	f("a", "line 1: a needs a ':', or a message in braces")
	f("a:\n\n", "line 3: a has no value")
	f("a: 1\nb {\n c: 2\n", "line 4: the message that begins in line 3 has no closing }")
	f("}", `line 1: expected the name of a field, got "}"`)
	f("1: 2", `line 1: expected the name of a field, got "1"`)
	f("\na: \"x\n\"", "line 2: a string has no closing quote")
	f(`a: "\q"`, "line 1: a string has an escape that does not exist")
	f(`a: "\777"`, "line 1: a string has an escape that does not exist")
	f("a: [1 2]", "line 1: a list needs a ',' or a ']'")
	f("a: [1,", "line 1: a has no value")
	f("[x.y]: 1", "line 1: extensions and Any are not supported")
	f("a: $", `line 1: unexpected character '$'`)
	f("a: \xff", "line 1: the text is not UTF-8")
	f(strings.Repeat("a{", 1000), "line 1: messages are nested more than 64 deep")
}

// Nothing panics or hangs, errors have a line of the text, and what was read can
// be written and read again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"name: \"m\"\nplatform: \"onnxruntime_onnx\"\nmax_batch_size: 8\ninput [ { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 16 ] reshape { shape: [] } } ]",
		"dynamic_batching { preferred_batch_size: [4, 8] max_queue_delay_microseconds: 100 }", "parameters: { key: \"a\" value: { string_value: \"b\" } }",
		"a: <b: 'c' \"d\">;", "a: -1.5e+3, b: 0x7 # c", "version_policy: { all {} }", "\"", "a: \"\\", "a: [", "a{{", "a:-",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		if err != nil {
			if e := err.(*Error); e.Line < 1 || e.Line > strings.Count(string(text), "\n")+1 {
				t.Fatalf("line %d of %q", e.Line, text)
			}
			return
		}
		again, err := Parse([]byte(write(m)))
		if err != nil || write(again) != write(m) {
			t.Fatalf("%q was read as %s, and that as %v", text, write(m), err)
		}
	})
}

// write is m as text.
func write(m *Message) string {
	var b strings.Builder
	for _, f := range m.Fields {
		switch v := f.Value; {
		case v.Message != nil:
			fmt.Fprintf(&b, "%s {%s} ", f.Name, write(v.Message))
		case v.String:
			fmt.Fprintf(&b, "%s: \"", f.Name)
			for _, c := range []byte(v.Text) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
			b.WriteString("\" ")
		default:
			fmt.Fprintf(&b, "%s: %s ", f.Name, v.Text)
		}
	}
	return b.String()
}
