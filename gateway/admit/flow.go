package admit

import "container/heap"

// class is who waits of one class: the callers, in turn.
type class struct {
	waiting    int
	head, tail *flow // the one at the head is next
	flows      map[string]*flow
	unused     []*flow // for the next callers
}

// flow is the places of one caller, as a heap by deadline, then by arrival.
type flow struct {
	caller     string
	places     []*Place
	prev, next *flow
}

// flow is the caller's, made if it has none.
func (c *class) flow(caller string) *flow {
	if f := c.flows[caller]; f != nil {
		return f
	}
	f := new(flow)
	if n := len(c.unused); n > 0 {
		f, c.unused = c.unused[n-1], c.unused[:n-1]
	}
	if c.flows == nil {
		c.flows = map[string]*flow{}
	}
	f.caller = caller
	c.flows[caller] = f
	c.append(f)
	return f
}

// drop forgets a flow without places.
func (c *class) drop(f *flow) {
	c.remove(f)
	delete(c.flows, f.caller)
	f.caller = ""
	c.unused = append(c.unused, f)
}

// turn makes the one after the head next.
func (c *class) turn() {
	f := c.head
	c.remove(f)
	c.append(f)
}

func (c *class) append(f *flow) {
	f.prev, f.next = c.tail, nil
	if c.tail == nil {
		c.head = f
	} else {
		c.tail.next = f
	}
	c.tail = f
}

func (c *class) remove(f *flow) {
	if f.prev == nil {
		c.head = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		c.tail = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.prev, f.next = nil, nil
}

// longest is the flow with the most places, the first in turn of several.
func (c *class) longest() *flow {
	longest := c.head
	for f := c.head.next; f != nil; f = f.next {
		if len(f.places) > len(longest.places) {
			longest = f
		}
	}
	return longest
}

// places is how many a caller has.
func (c *class) places(caller string) int {
	if f := c.flows[caller]; f != nil {
		return len(f.places)
	}
	return 0
}

// latest is the place that goes last.
func (f *flow) latest() *Place {
	n := len(f.places)
	last := n / 2 // the first that none is below
	for i := last + 1; i < n; i++ {
		if f.Less(last, i) {
			last = i
		}
	}
	return f.places[last]
}

var _ heap.Interface = (*flow)(nil)

// Len implements heap.Interface, as the others do.
func (f *flow) Len() int { return len(f.places) }

// Less orders by deadline, then by arrival.
func (f *flow) Less(i, j int) bool {
	a, b := f.places[i], f.places[j]
	return a.Deadline < b.Deadline || a.Deadline == b.Deadline && a.number < b.number
}

// Swap exchanges two places, which know where they are.
func (f *flow) Swap(i, j int) {
	f.places[i], f.places[j] = f.places[j], f.places[i]
	f.places[i].index, f.places[j].index = i, j
}

// Push appends a place.
func (f *flow) Push(x any) {
	p := x.(*Place)
	p.index = len(f.places)
	f.places = append(f.places, p)
}

// Pop removes the last place.
func (f *flow) Pop() any {
	n := len(f.places) - 1
	p := f.places[n]
	f.places[n] = nil
	f.places = f.places[:n]
	return p
}
