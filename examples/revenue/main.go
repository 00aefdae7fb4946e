// Command revenue adds what customers have paid, of CSV files with a header, and lists those that paid most.
//
//	go run ./examples/revenue --input orders/ --records csv --set top=3
package main

import (
	b4 "github.com/bridgefour/bridgefour"
	"github.com/bridgefour/bridgefour/engine"
)

type config struct {
	Top int `b4:",default=10" help:"how many customers"`
}

// order has the columns that are needed; others may be there.
type order struct {
	Customer string
	Cents    int64
}

func revenue(cfg config) (b4.Output, error) {
	paid := b4.Map(b4.CSV[order](), func(_ *b4.Task, o order, emit b4.Emit[string, int64]) error {
		emit(o.Customer, o.Cents)
		return nil
	})
	sums := b4.Combine(paid, b4.Sum[int64])
	return b4.Top(sums, cfg.Top, func(p b4.KV[string, int64]) b4.Desc[int64] { return b4.Desc[int64]{Value: p.Value} }), nil
}

func main() {
	engine.Main(b4.New("revenue", revenue, b4.Summary("the customers that paid most")))
}
