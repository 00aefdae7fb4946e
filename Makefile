# What there is to do with this project. Needs Go and git; `make test` says what else it would like.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BINARY  := bin/bridgefour

.PHONY: build run test check sim soak bench clean

# One static binary.
build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BINARY) ./cmd/bridgefour

# Counts the words of a whole book in an embedded cluster: one leader with a durable log, one worker, a slot per CPU.
run: build
	./$(BINARY) run wordcount --input testdata/book/opticks.txt --split 64KiB --output out/wordcount --overwrite

# Every test, with the race detector; installs what tests need where it can.
test:
	scripts/test.sh

# Format, vet, lint, tidiness, generated code.
check:
	scripts/check.sh

# Plays one world of the simulator and tells each step: make sim SEED=128
SEED ?= 1
sim:
	go test -count 1 -timeout 0 -run '^TestSeeds$$' -v ./internal/sim -sim.seed $(SEED)

# Plays worlds at random for so long; a failure prints its seed, and the faults that it takes: make soak FOR=10m
FOR ?= 10m
soak:
	go test -count 1 -timeout 0 -run '^TestSoak$$' -v ./internal/sim -sim.soak $(FOR)

# Prints the table of the README's figures.
bench: build
	go run ./bench

clean:
	rm -rf bin out
