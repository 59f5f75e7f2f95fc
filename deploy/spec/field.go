package spec

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// field is one field of a struct type: its name in documents, and what the tags
// that the JSON Schema is generated from allow. Decode, Validate and the schema
// thus cannot disagree about the range of a single value.
type field struct {
	name       string
	index      []int // for reflect.Value.FieldByIndex
	minimum    float64
	maximum    float64
	above      bool // the minimum itself is not allowed
	multipleOf int  // 0 for any
	maxItems   int  // of a list
	enum       []string
	fallback   string // the default as text; empty for none
}

// fields is a struct type's fields in order, those of embedded structs in place.
type fields []field

var fieldsByType sync.Map // reflect.Type to fields

// fieldsOf is the fields of struct type t.
func fieldsOf(t reflect.Type) fields {
	if known, ok := fieldsByType.Load(t); ok {
		return known.(fields)
	}
	var all fields
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || !f.IsExported() || name == "" {
			continue
		}
		all = append(all, newField(name, f))
	}
	fieldsByType.Store(t, all)
	return all
}

func newField(name string, f reflect.StructField) field {
	made := field{name: name, index: f.Index, minimum: math.Inf(-1), maximum: math.Inf(1)}
	for rule := range strings.SplitSeq(f.Tag.Get("jsonschema"), ",") {
		key, value, _ := strings.Cut(rule, "=")
		number, _ := strconv.ParseFloat(value, 64)
		switch key {
		case "minimum":
			made.minimum = number
		case "exclusiveMinimum":
			made.minimum, made.above = number, true
		case "maximum":
			made.maximum = number
		case "multipleOf":
			made.multipleOf = int(number)
		case "maxItems":
			made.maxItems = int(number)
		case "enum":
			made.enum = append(made.enum, value)
		case "default":
			made.fallback = value
		}
	}
	return made
}

// find is the field called name in documents.
func (f fields) find(name string) (field, bool) {
	for _, candidate := range f {
		if candidate.name == name {
			return candidate, true
		}
	}
	return field{}, false
}

// check says what is wrong with v, a scalar of this field; "" for nothing.
func (f *field) check(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Int:
		return f.checkNumber(float64(v.Int()))
	case reflect.Float64:
		return f.checkNumber(v.Float())
	case reflect.String:
		return f.checkEnum(v.String())
	}
	return ""
}

func (f *field) checkNumber(x float64) string {
	low := x < f.minimum || f.above && x == f.minimum
	odd := f.multipleOf > 0 && math.Mod(x, float64(f.multipleOf)) != 0
	if !low && !odd && x <= f.maximum && !math.IsInf(x, 0) { // NaN is not <=
		return ""
	}
	message := fmt.Sprintf("is %s; must be %s", number(x), f.allowed())
	switch {
	case x == 0 && f.fallback != "":
		message += ", or left out for the default of " + f.fallback
	case x == 0:
		message += ", or left out"
	}
	return message
}

// allowed is the range in words.
func (f *field) allowed() string {
	var words string
	switch {
	case f.above:
		words = "more than " + number(f.minimum)
	case f.maximum < math.MaxInt32:
		words = number(f.minimum) + " to " + number(f.maximum)
	default:
		words = number(f.minimum) + " or more"
	}
	if f.multipleOf > 0 {
		words += fmt.Sprintf(", in steps of %d", f.multipleOf)
	}
	return words
}

func (f *field) checkEnum(s string) string {
	if s == "" || len(f.enum) == 0 {
		return ""
	}
	for _, allowed := range f.enum {
		if s == allowed {
			return ""
		}
	}
	return fmt.Sprintf("is %s; must be %s", quote(s), strings.Join(f.enum, " or "))
}

// number is x as a person would write it.
func number(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

// nearest is the field that a misspelt name probably means; "" if none is near.
// Letter case, '_' and '-' do not count, so Python's spelling finds ours.
func (f fields) nearest(name string) string {
	const longest = 64 // bytes; no name of ours is near a longer one
	if len(name) > longest {
		return ""
	}
	best, limit := "", len(name)/3+1
	for _, candidate := range f {
		if d := distance(plain(name), plain(candidate.name)); d < limit {
			best, limit = candidate.name, d
		}
	}
	return best
}

func plain(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
}

// distance is the number of bytes to insert, delete, change or swap with the
// next one to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
