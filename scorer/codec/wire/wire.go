// Package wire reads protobuf messages field by field, where they stand.
package wire

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// Message is what is left to read of a message. Fields are in the order of the
// bytes, which may be any; those of a type that the caller does not expect are
// for it to pass over, as protobuf wants.
type Message struct {
	Num    protowire.Number
	Type   protowire.Type
	Varint uint64 // of a field of type Varint
	Bytes  []byte // of any other type; of a fixed one its 4 or 8 bytes. Lent, as the message is

	rest []byte
	bad  bool
}

// Read begins with a message.
func Read(b []byte) Message { return Message{rest: b} }

// Next goes to the next field. False: there is none, or the message is cut off.
func (m *Message) Next() bool {
	if len(m.rest) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(m.rest)
	if n < 0 {
		return m.broken()
	}
	m.Num, m.Type, m.Bytes = num, typ, nil
	value := m.rest[n:]
	switch typ {
	case protowire.VarintType:
		m.Varint, n = protowire.ConsumeVarint(value)
	case protowire.BytesType:
		m.Bytes, n = protowire.ConsumeBytes(value)
	default:
		if n = protowire.ConsumeFieldValue(num, typ, value); n > 0 {
			m.Bytes = value[:n]
		}
	}
	if n < 0 {
		return m.broken()
	}
	m.rest = value[n:]
	return true
}

func (m *Message) broken() bool {
	m.bad, m.rest = true, nil
	return false
}

// Bad reports whether reading ended because the message is cut off or no message.
func (m *Message) Bad() bool { return m.bad }

// Is reports whether the field is number num and holds bytes: text, a message, or
// packed numbers.
func (m *Message) Is(num protowire.Number) bool {
	return m.Num == num && m.Type == protowire.BytesType
}

// IsVarint reports whether the field is number num and holds one varint.
func (m *Message) IsVarint(num protowire.Number) bool {
	return m.Num == num && m.Type == protowire.VarintType
}

// Varints are the values of a field of repeated varints, packed or alone.
func (m *Message) Varints() Varints {
	if m.Type == protowire.VarintType {
		return Varints{one: m.Varint, single: true}
	}
	if m.Type == protowire.BytesType {
		return Varints{rest: m.Bytes}
	}
	return Varints{}
}

// Varints are varints one after another.
type Varints struct {
	rest   []byte
	one    uint64
	single bool
	bad    bool
}

// Next is the next one; false: there is none, or it is cut off.
func (v *Varints) Next() (uint64, bool) {
	if v.single {
		v.single = false
		return v.one, true
	}
	if len(v.rest) == 0 {
		return 0, false
	}
	if b := v.rest[0]; b < 0x80 {
		v.rest = v.rest[1:]
		return uint64(b), true
	}
	x, n := protowire.ConsumeVarint(v.rest)
	if n < 0 {
		v.bad, v.rest = true, nil
		return 0, false
	}
	v.rest = v.rest[n:]
	return x, true
}

// Bad reports whether reading ended because a varint is cut off or too long.
func (v *Varints) Bad() bool { return v.bad }

// Fixed are the bytes of a field of repeated fixed-size numbers, packed or alone;
// false: they do not fit the size, which is 4 or 8. A field of another type has none.
func (m *Message) Fixed(size int) ([]byte, bool) {
	alone := protowire.Fixed32Type
	if size == 8 {
		alone = protowire.Fixed64Type
	}
	if m.Type != alone && m.Type != protowire.BytesType {
		return nil, true
	}
	return m.Bytes, len(m.Bytes)%size == 0
}

// Append functions for what answers have; tags are of fields below 16.

// AppendBytes appends a field of bytes, text or an encoded message.
func AppendBytes[T string | []byte](dst []byte, num protowire.Number, v T) []byte {
	return append(AppendLength(dst, num, len(v)), v...)
}

// AppendLength appends the head of a field of n bytes, which the caller appends.
func AppendLength(dst []byte, num protowire.Number, n int) []byte {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	return binary.AppendUvarint(dst, uint64(n))
}

// SizeBytes is the length of a field of n bytes with its head.
func SizeBytes(num protowire.Number, n int) int {
	return protowire.SizeTag(num) + protowire.SizeBytes(n)
}

// SizeVarints is the length of numbers as packed varints.
func SizeVarints(list []int64) int {
	n := 0
	for _, v := range list {
		n += protowire.SizeVarint(uint64(v))
	}
	return n
}

// AppendVarints appends a field of packed varints.
func AppendVarints(dst []byte, num protowire.Number, list []int64) []byte {
	dst = AppendLength(dst, num, SizeVarints(list))
	for _, v := range list {
		dst = binary.AppendUvarint(dst, uint64(v))
	}
	return dst
}
