package balance

import "testing"

func TestPick(t *testing.T) {
	f := func(turn, want int, loads ...Load) {
		t.Helper()
		if got := Pick(loads, turn); got != want {
			t.Errorf("Pick(%v, %d) = %d; want %d", loads, turn, got, want)
		}
	}
	f(0, -1)
	f(0, -1, Load{0, 0}, Load{4, 4}, Load{4, 5})
	f(0, 1, Load{4, 2}, Load{4, 1})
	f(0, 0, Load{8, 3}, Load{4, 2}) // by share of the window, not by count
	f(0, 2, Load{1, 1}, Load{0, 0}, Load{9, 8})
	f(1, 1, Load{2, 0}, Load{2, 0}, Load{2, 0}) // in turn where equal
	f(5, 2, Load{2, 0}, Load{2, 0}, Load{2, 0})
	f(1, 0, Load{2, 0}, Load{2, 1})
}
