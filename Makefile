# Targets of this project. They need Go and git; `make test` lists what else some tests need.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
EPOCH   := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
BINARY  := bin/bridgefour
ARCH    ?= $(shell go env GOARCH)
# Without grpcnotrace the linker keeps all exported methods, because of the templates of a debug page: 3 MB. Only gRPC speaks HTTP/2, with an implementation
# of its own: that of net/http is 500 KB. What is called a few times for a command or a request is compiled without inlining: 600 KB.
SELDOM  := $(addprefix github.com/bridgefour/bridgefour/internal/,access cli compat discover httpapi peer plan server) \
	$(addprefix github.com/,danielgtaylor/... miekg/... prometheus/... spf13/...) mvdan.cc/...
GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags grpcnotrace,nethttpomithttp2 $(SELDOM:%=-gcflags=%=-l) -ldflags '-s -w -X main.version=$(VERSION)'

.PHONY: build rootfs image packages dist chaos run test test-quick test-long check sim soak bench clean

# One static binary, and in bin/share man pages and completions, laid out as /usr/local/share. Their date is that of the commit.
build:
	$(GOBUILD) -o $(BINARY) ./cmd/bridgefour
	rm -rf bin/share
	SOURCE_DATE_EPOCH=$(EPOCH) go run -trimpath ./scripts/manpages bin/share

# The files of the image for ARCH, amd64 or arm64, in bin/rootfs-ARCH.tar.
rootfs:
	GOOS=linux GOARCH=$(ARCH) $(GOBUILD) -o bin/bridgefour-$(ARCH) ./cmd/bridgefour
	deploy/docker/rootfs.sh bin/bridgefour-$(ARCH) bin/rootfs-$(ARCH).tar

# The image bridgefour, from the binary that this machine builds. deploy/docker/Dockerfile says how to build from source in containers, and bridgefour:tools.
image: rootfs
	DOCKER_BUILDKIT=1 docker build -f deploy/docker/Dockerfile --build-arg ROOTFS=prebuilt --build-arg TARGETARCH=$(ARCH) --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) -t bridgefour .

# Tarballs, deb and rpm packages of ARCHES, and their checksums, in bin/dist.
ARCHES ?= amd64 arm64
packages: build
	for arch in $(ARCHES); do GOOS=linux GOARCH=$$arch $(GOBUILD) -o bin/bridgefour-$$arch ./cmd/bridgefour || exit; done
	SOURCE_DATE_EPOCH=$(EPOCH) deploy/dist/packages.sh $(VERSION) bin/dist bin/bridgefour- $(ARCHES)

# A release: the packages, and a bill of the modules in each binary (CycloneDX).
dist: packages
	for arch in $(ARCHES); do \
		go run github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0 bin -json -noserial -version $(VERSION) -output bin/dist/bridgefour_$$arch.cdx.json bin/bridgefour-$$arch && \
		sed -i 's/"timestamp": "[^"]*"/"timestamp": "$(shell date -u -d @$(EPOCH) +%FT%TZ)"/' bin/dist/bridgefour_$$arch.cdx.json || exit; done
	cd bin/dist && sha256sum bridgefour* >SHA256SUMS

# Counts the words of a whole book in an embedded cluster: one leader with a durable log, one worker, a slot per CPU.
run: build
	./$(BINARY) run wordcount --input testdata/book/opticks.txt --split 64KiB --output out/wordcount --overwrite

# Every test; installs what tests need on Debian as root.
test:
	scripts/test.sh

# All but the end-to-end tests, without the race detector: under 90 seconds on two cores.
test-quick:
	go run ./scripts/gotest -short $$(go list ./... | grep -v -e '/internal/e2e$$' -e '/internal/deploy$$')

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

# Plays a hundred random seeds with real processes, and then those of the simulator for a time; a failure prints its seed and the faults that it needs: make soak FOR=10m
FOR ?= 10m
soak:
	go test -count 1 -timeout 0 -parallel 4 -run '^TestStagesKilled$$' ./internal/e2e -stages.seeds 100
	go test -count 1 -timeout 0 -run '^TestSoak$$' -v ./internal/sim -sim.soak $(FOR)

# Kills workers and leaders while a job runs, and compares its result with an independent count: make chaos SEED=7. With CHAOS=--compose in containers.
chaos: build
	SEED=$(SEED) deploy/chaos/chaos.sh $(CHAOS)

# Prints the table of figures of the README.
bench: build
	go run ./bench

clean:
	rm -rf bin out
