# Everything that is done with this repository. `make` lists the targets.
PYTHON      ?= python3
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 20s
TOOLS       := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice/tools
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS     := -X sluice.dev/cmd/internal/cli.Version=$(VERSION)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: tools
tools:
	@command -v go >/dev/null || { echo "Go is missing: install the release that go.mod names, or newer"; exit 1; }
	@command -v $$(go env CC) >/dev/null || { echo "a C compiler is missing: install gcc or clang"; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "Python's pip is missing: it fetches ONNX Runtime (apt-get install python3-pip)"; exit 1; }

.PHONY: build
build: ## Build bin/sluice, bin/gateway and bin/scorer
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/sluice ./cmd/gateway ./cmd/scorer

.PHONY: setup
setup: tools build ## Build, and install ONNX Runtime into the user's cache
	@bin/sluice runtime install

.PHONY: run
run: setup ## Serve the digits example on 127.0.0.1:8000
	bin/sluice serve --file examples/digits/endpoint.yaml --http 127.0.0.1:8000 --metrics 127.0.0.1:8002 --state .state

.PHONY: models
models: setup
	@go run ./bench/models/fetch

.PHONY: test
test: models clients ## Set up and run all tests
	go test -timeout 5m ./...

.PHONY: race
race: models clients ## Run all tests with the race detector
	go test -race -timeout 10m ./...

# Beside those of bench/compare, which are in a folder of their own.
PEERS ?= $(TOOLS)/peers

.PHONY: peers
peers: models ## Install servers of other kinds into the user's cache, and test in front of them
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/pip install --quiet azureml-inference-server-http==1.5.1 mlserver==1.7.1
	SLUICE_AZMLINFSRV=$(PEERS)/bin/azmlinfsrv SLUICE_MLSERVER=$(PEERS)/bin/mlserver go test ./cmd -run Genuine -count 1 -v

.PHONY: check
check: tools ## Check format, vet, lint and the import order
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not formatted; run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	go test ./cmd -run Dependencies

# The names of the clients' folders change with what is in them; bench/clients/clients_test.go finds them so.
CLIENTS     = $(TOOLS)/clients-$(shell sha256sum bench/clients/requirements.txt | cut -c1-12)
ANALYZER    = $(TOOLS)/perf_analyzer-$(shell sha256sum bench/clients/perf_analyzer.txt | cut -c1-12)

.PHONY: clients
clients: tools
	@test -e $(CLIENTS)/done || { $(PYTHON) -m venv --clear $(CLIENTS) && \
	  $(CLIENTS)/bin/python -m pip install --quiet --no-deps --require-hashes -r bench/clients/requirements.txt && touch $(CLIENTS)/done; } || \
	  echo "the Python clients could not be fetched (no network?); the tests with them are skipped"
	@test -e $(ANALYZER)/done || { rm -rf $(ANALYZER) && \
	  $(CLIENTS)/bin/python -m pip install --quiet --no-deps --require-hashes --target $(ANALYZER) -r bench/clients/perf_analyzer.txt && \
	  cd $(ANALYZER) && apt-get -qq -o APT::Sandbox::User=root download libb64-0d && dpkg-deb -x libb64-0d_*.deb . && touch done; } || \
	  echo "perf_analyzer, or Debian's libb64 for it, could not be fetched; the tests with it are skipped"

PROTOC     := $(TOOLS)/protoc-1.85.1/bin/python
PROTOS     := $(wildcard gateway/grpcapi/*/*.proto)

$(PROTOC):
	$(PYTHON) -m venv $(TOOLS)/protoc-1.85.1
	$(PROTOC) -m pip install --quiet grpcio-tools==1.85.1

.PHONY: proto
proto: $(PROTOC) ## Generate the Go code of the .proto files
	GOBIN=$(TOOLS) go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(TOOLS) go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
	PATH=$(TOOLS):$$PATH $(PROTOC) -m grpc_tools.protoc -I. --go_out=. --go_opt=module=sluice.dev \
	  --go-grpc_out=. --go-grpc_opt=module=sluice.dev,require_unimplemented_servers=false $(PROTOS)

.PHONY: fuzz
fuzz: ## Fuzz every target for FUZZTIME each
	@for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "== $$pkg $$f"; go test $$pkg -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) || exit 1; \
	  done; \
	done

.PHONY: bench
bench: setup ## Run the benchmarks, and compare with peers
	go test -run '^$$' -bench . -benchmem ./router ./auth/... ./gateway ./scorer/... ./accel/...
	go run ./bench/compare -results bench/RESULTS.md
	go run ./bench/batching -results bench/RESULTS.md

.PHONY: clean
clean: ## Remove what was built and what the example keeps
	rm -rf bin .state
