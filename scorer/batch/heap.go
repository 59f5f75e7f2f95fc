package batch

import "sluice.dev/scorer"

// key orders what waits: by fair round, then by when it is due, then by arrival.
type key struct {
	round uint64
	due   scorer.Instant
	seq   uint64
}

func (k *key) before(o *key) bool {
	if k.round != o.round {
		return k.round < o.round
	}
	if k.due != o.due {
		return k.due < o.due
	}
	return k.seq < o.seq
}

// node is a place in a heap, part of what is in it. Its key must not change there.
type node[T any] struct {
	key
	owner       *T
	child, next *node[T]
	prev        *node[T] // the parent of a first child, else the sibling before
}

// heap is a pairing heap: its memory is that of its nodes, so that nothing is
// allocated. Adding takes constant time, taking out logarithmic (amortised).
//
// M. Fredman et al., The pairing heap: a new form of self-adjusting heap, 1986.
type heap[T any] struct{ root *node[T] }

// first is what goes first; nil if there is nothing.
func (h *heap[T]) first() *T {
	if h.root == nil {
		return nil
	}
	return h.root.owner
}

func (h *heap[T]) push(n *node[T]) {
	n.child, n.next, n.prev = nil, nil, nil
	h.root = meld(h.root, n)
}

// remove takes n out, which must be in h.
func (h *heap[T]) remove(n *node[T]) {
	rest := pairUp(n.child)
	if n == h.root {
		h.root = rest
	} else {
		if n.prev.child == n {
			n.prev.child = n.next
		} else {
			n.prev.next = n.next
		}
		if n.next != nil {
			n.next.prev = n.prev
		}
		h.root = meld(h.root, rest)
	}
	n.child, n.next, n.prev = nil, nil, nil
}

// meld makes one tree of two roots.
func meld[T any](a, b *node[T]) *node[T] {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	if b.before(&a.key) {
		a, b = b, a
	}
	b.next, b.prev = a.child, a
	if a.child != nil {
		a.child.prev = b
	}
	a.child = b
	return a
}

// pairUp makes one tree of siblings: pairs from left to right, then all of them
// from right to left.
func pairUp[T any](n *node[T]) *node[T] {
	var pairs *node[T] // linked by prev, last one first
	for n != nil {
		a, b := n, n.next
		n = nil
		if b != nil {
			n = b.next
			b.next, b.prev = nil, nil
		}
		a.next, a.prev = nil, nil
		a = meld(a, b)
		a.prev = pairs
		pairs = a
	}
	var root *node[T]
	for pairs != nil {
		before := pairs.prev
		pairs.prev = nil
		root = meld(root, pairs)
		pairs = before
	}
	return root
}
