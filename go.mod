module sluice.dev

go 1.26
