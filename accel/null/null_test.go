package null

import (
	"testing"

	"sluice.dev/accel"
	"sluice.dev/accel/acceltest"
)

func TestDriver(t *testing.T) { acceltest.Test(t, New(), accel.Model{Name: "any"}) }
