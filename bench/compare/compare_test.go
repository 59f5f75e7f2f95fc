package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestFailedRequestsOfTheWideModelAreTold(t *testing.T) {
	var b bytes.Buffer
	reportWide(&b, []wideRound{{errors: 2}, {}, {errors: 3}})
	if !strings.Contains(b.String(), "5 requests failed") {
		t.Error(b.String())
	}
}
