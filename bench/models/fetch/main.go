// Command fetch fetches the real models that tests and benchmarks use.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"

	"sluice.dev/bench/models"
)

func main() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := models.Fetch(ctx, os.Stderr); err != nil {
		log.Fatal(err)
	}
}
