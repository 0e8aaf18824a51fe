# make setup once, or just `make demo` or `make test`: each sets up first if that was not done.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.memattn-installed

.PHONY: setup demo test proofs coverage check fmt lint types dist

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'setuptools>=77' wheel
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/memattn demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

proofs: $(INSTALLED)
	$(BIN)/python -m pytest -m proof

coverage: $(INSTALLED)
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

check: lint types test dist

fmt: $(INSTALLED)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: $(INSTALLED)
	$(BIN)/ruff format --check
	$(BIN)/ruff check

# The checkout has no memattn/kernels/<backend>: mypy sees the tree as it installs.
types: $(INSTALLED)
	rm -rf build/staged
	$(BIN)/python setup.py --quiet build_py --build-lib build/staged
	cd build/staged && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml \
	  --cache-dir $(CURDIR)/.mypy_cache -p memattn

# The wheel, built from the sdist, in a fresh environment and away from the checkout. Only its
# dependencies are borrowed from $(VENV): a path added by a .pth file brings no editable install.
CLEAN = build/clean
purelib = $$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

dist: $(INSTALLED)
	rm -rf dist $(CLEAN)
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m venv --without-pip $(CLEAN)
	$(BIN)/python -m pip --python $(CLEAN) install --quiet --no-index --no-deps dist/*.whl
	echo "$(call purelib,$(VENV))" > "$(call purelib,$(CLEAN))/dependencies.pth"
	$(BIN)/python -m pip --python $(CLEAN) check
	cd $(CLEAN) && bin/python -I $(CURDIR)/tests/installed.py && bin/memattn info
