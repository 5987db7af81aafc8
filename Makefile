# Two commands do everything: `make quickstart` and `make test`. Each works alone, from a fresh clone.
SHELL := /bin/bash
# cmake from .tools is used only where the system has none.
export PATH := $(PATH):$(CURDIR)/.tools/cmake/cmake/data/bin
CARGO ?= cargo
HARNESS := target/release/harness

.PHONY: nccl quickstart test test-cluster build setup bench bench-classify bench-engine bench-train bench-video bench-views soak fuzz fingerprints manual fmt clean

quickstart: build        ## run experiments/quickstart.exp and say where its summary is
	$(HARNESS) run experiments/quickstart.exp

test: build              ## formatting, lints with warnings denied, unit and end-to-end tests
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings
	$(CARGO) test --release --workspace --locked

test-cluster: build      ## Slurm, ranks and the shared cache alone; says what was skipped, and what would have to be installed
	@$(CARGO) build --release --workspace --locked --example s3_server
	@set -o pipefail; $(CARGO) test --release --workspace --locked --test cluster --test ranks --test shared --test results \
		--test jobs -- --nocapture 2>&1 | tee target/test-cluster.log
	@printf 'test-cluster: %s skipped\n' "$$(grep -c '^skipped:' target/test-cluster.log)"

build: setup             ## both binaries, in target/release
	$(CARGO) build --release --locked -p harness-runtime -p harness-worker

setup:                   ## what the build needs: libtorch, cmake, nasm
	@.ci/tools
	@.ci/libtorch

bench: build             ## speed, as ratios measured alternately in one run
	$(MAKE) bench-views
	$(MAKE) bench-video
	$(MAKE) bench-train
	$(MAKE) bench-classify
	python3 tests/bench/engine.py $(BENCH)

bench-engine: build      ## the engine alone, beside make; BENCH="--peers DIR" adds DVC, Snakemake and redun
	python3 tests/bench/engine.py $(BENCH)

bench-views: setup       ## the picture path beside torchvision's with Pillow
	$(CARGO) build --release --locked -p harness-views --example throughput
	tests/bench/python tests/bench/views.py target/release/examples/throughput

bench-train: setup       ## training on the CPU beside PyTorch; BENCH_TRAIN="--rounds 9" is passed on
	$(CARGO) build --release --locked -p harness-worker --example train_step
	OMP_NUM_THREADS=1 tests/bench/python tests/bench/train_step.py $(BENCH_TRAIN)

soak: build              ## kills, damage, a full disk, I/O errors and eight processes, for minutes, with a count
	$(CARGO) test --release --locked -p harness-tests --test soak -- --ignored --nocapture

bench-classify: build    ## kNN, SVM and features against faiss, scikit-learn and the bare computation
	$(CARGO) build --release --locked -p harness-worker --example classify
	tests/bench/python tests/bench/classify.py

# Headers of CUDA and NCCL: a toolkit's, or those of the NVIDIA wheels beside the libtorch in use.
CUDA_INCLUDES ?= $(wildcard /usr/local/cuda/include $(LIBTORCH)/../nvidia/*/include)
TORCH := $(or $(LIBTORCH),.libtorch/torch)

nccl: setup              ## the worker's half for several GPUs, where CUDA's and NCCL's headers are (CUDA_INCLUDES="DIR DIR")
	$(CXX) -std=c++17 -O1 -w -shared -fPIC -DUSE_DISTRIBUTED -DUSE_C10D_NCCL -I$(TORCH)/include \
	    -I$(TORCH)/include/torch/csrc/api/include $(addprefix -I,$(CUDA_INCLUDES)) \
	    runtime/worker/shim/nccl.cpp -o target/release/libharness_nccl.so

fuzz:                    ## change texts at random and read them, for FUZZ seconds
	$(CARGO) run --release --locked -p harness-dsl --example fuzz -- $(or $(FUZZ),300)

manual:                  ## rewrite docs/reference.md from the structs of the kinds
	$(CARGO) run --quiet --locked -p harness-runtime -- describe --markdown > docs/reference.md.new
	mv docs/reference.md.new docs/reference.md

fingerprints: build      ## say that results are as they were (or VERSIONs raised): tests/fingerprints/; FINGERPRINTS=waive takes other results down
	HARNESS_FINGERPRINTS=$(or $(FINGERPRINTS),write) $(CARGO) test --release --locked -p harness-tests --test fingerprints

fmt:
	$(CARGO) fmt --all

clean:
	rm -rf target .libtorch .tools

bench-video: build       ## video: propagation, J and F against the published definitions in Python
	$(CARGO) build --release --locked -p harness-worker --example propagate_speed --example score_speed
	tests/bench/python tests/bench/propagate.py
	tests/bench/python tests/bench/davis_score.py
