# Targets of this project. They need Go and git; `make test` lists what else some tests need.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BINARY  := bin/bridgefour

.PHONY: build run test test-quick test-long check sim soak bench clean

# One static binary.
build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BINARY) ./cmd/bridgefour

# Counts the words of a whole book in an embedded cluster: one leader with a durable log, one worker, a slot per CPU.
run: build
	./$(BINARY) run wordcount --input testdata/book/opticks.txt --split 64KiB --output out/wordcount --overwrite

# Every test with the race detector; installs what tests need on Debian as root.
test:
	scripts/test.sh

# All but the end-to-end tests, without the race detector: under 90 seconds on two cores.
test-quick:
	go run ./scripts/gotest -short $$(go list ./... | grep -v '/internal/e2e$$')

# More seeds, more power losses and every fuzz target: about five minutes.
test-long:
	scripts/test-long.sh

# Format, vet, lint, dead code, go.mod, generated code.
check:
	scripts/check.sh

# Plays one seed of the simulator and prints each step: make sim SEED=128
SEED ?= 1
sim:
	go test -count 1 -timeout 0 -run '^TestSeeds$$' -v ./internal/sim -sim.seed $(SEED)

# Plays random seeds for a time; a failure prints its seed and the faults that it needs: make soak FOR=10m
FOR ?= 10m
soak:
	go test -count 1 -timeout 0 -run '^TestSoak$$' -v ./internal/sim -sim.soak $(FOR)

# Prints the table of figures of the README.
bench: build
	go run ./bench

clean:
	rm -rf bin out
