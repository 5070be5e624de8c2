# Everything that a newcomer, and CI, needs. `make run` and `make test` do all on a machine with Python 3.11+ and git.
PYTHON ?= python3
PAPER ?= g-acil
JOBS ?= 2
CHOSEN := $(filter command line environment,$(origin PAPER))
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# what a claim needs beside the package itself, as the catalogue says
EXTRA = $(shell $(PYTHON) -c 'import sys, tomllib; print(*(p["extra"] for p in tomllib.load(open("src/throughline/papers.toml", "rb"))["paper"] if p["slug"] in sys.argv[1:] and "extra" in p))' $(PAPER) 2>/dev/null)

.PHONY: run test lint docs bench clean

run: $(or $(EXTRA:%=.venv/%.stamp),.venv/base.stamp)  ## run a claim at laptop scale: make run PAPER=groco; without PAPER a quick one on few seeds
	$(BIN)/throughline run $(PAPER) $(if $(CHOSEN),,--seeds 5) || test $$? -eq 1  # a claim that does not hold is a result
	@echo
	@echo "What next?"
	@echo "  $(BIN)/throughline report                  # open the report of this run in the browser"
	@echo "  $(BIN)/throughline list                    # every paper; ● marks those that can be run"
	@echo "  $(BIN)/throughline show anyloss            # what a paper offers, what it claims, and what to import"
	@echo "  $(BIN)/throughline run anyloss --data my.csv --target my_column   # does it hold on your data?"

test: .venv/dev.stamp  ## the whole suite
	OMP_NUM_THREADS=1 MPLBACKEND=agg $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/dev.stamp  ## the documentation, into docs/_build/html
	OMP_NUM_THREADS=1 MPLBACKEND=agg $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: .venv/dev.stamp  ## ours beside its peer: make bench PAPER=groco; all papers, on an idle machine, make docs/benchmarks.md
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m benchmarks $(if $(CHOSEN),$(PAPER),--write docs) \
	$(if $(CHOSEN),,; missed=$$?; $(BIN)/python -m benchmarks.engines && exit $$missed)

.venv/base.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Throughline needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/%.stamp: .venv/base.stamp
	$(PIP) --editable '.[$*]'
	touch $@

.venv/dev.stamp: .venv/base.stamp
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps deepinv  # without torchvision, which has no build for the CPU build of torch; the tests stand in for it
	touch $@

clean:
	rm -rf .venv docs/_build docs/generated docs/gallery
