package report

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"sluice.dev/bench/proc"
)

// Machine says when and where something is measured.
func Machine() string {
	return fmt.Sprintf("%s, on %s, %d cores, %.0f GiB, %s",
		time.Now().UTC().Format(time.DateOnly), proc.Processor(), runtime.NumCPU(), float64(proc.Memory())/(1<<30), proc.Kernel())
}

// Section writes one section of a Markdown file, in the place of the one with the same
// heading, or at the end. The first line of text is its heading, "# …"; it ends where the
// next one of that level begins.
func Section(path, text string) error {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read what was measured before: %w", err)
	}
	if err := os.WriteFile(path, []byte(replace(string(data), text)), 0o644); err != nil {
		return fmt.Errorf("keep what was measured: %w", err)
	}
	return nil
}

// replace puts a section into a document.
func replace(document, text string) string {
	heading, _, _ := strings.Cut(text, "\n")
	var sections []string
	found := false
	for _, s := range split(document) {
		if first, _, _ := strings.Cut(s, "\n"); first == heading {
			s, found = text, true
		}
		sections = append(sections, strings.TrimRight(s, "\n")+"\n")
	}
	if !found {
		sections = append(sections, strings.TrimRight(text, "\n")+"\n")
	}
	return strings.Join(sections, "\n")
}

// split cuts a document before every heading of the first level.
func split(document string) (sections []string) {
	var b strings.Builder
	for line := range strings.Lines(document) {
		if strings.HasPrefix(line, "# ") && b.Len() > 0 {
			sections = append(sections, b.String())
			b.Reset()
		}
		b.WriteString(line)
	}
	if b.Len() > 0 {
		sections = append(sections, b.String())
	}
	return sections
}
