# `make demo` and `make test` need only Python >= 3.11. They create .venv, or update it when its requirements change.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

# On x86: an older instruction set for each library that computes, so that results differ in their last bits. The
# kernels compiled by numba give the same bits with any; numba caches them for each.
PORTABLE := ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41 OPENBLAS_CORETYPE=Prescott \
	NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=

# Tests that train nothing. All others are run by `test-portable`, new ones too.
UNTRAINED := stats utils acceptance/test_wheel.py report/test_browser.py tickets/test_ticket_fuzz.py test_architecture.py \
	integrations/test_ray_cluster.py integrations/test_ray_executor.py examples/test_clusters.py \
	docs/test_site.py graph acceptance/test_architectures.py acceptance/test_coupled_pruning.py acceptance/test_coupled_random_graphs.py \
	acceptance/test_dead_units.py exports/test_hugging_face.py

.PHONY: demo test test-portable slow gpu docs tutorials lint clean

demo: $(VENV)/.demo
	$(BIN)/tombola run digits

# Two processes with one thread each; most machines have two cores. Each file is run by one process.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(VENV)/.test lint
	$(PYTEST)

test-portable: $(VENV)/.test
	$(PORTABLE) $(PYTEST) $(UNTRAINED:%=--ignore tests/%)

slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow

# On a machine with a CUDA device: whether everything is right there, and how fast.
gpu: $(VENV)/.test
	$(BIN)/python -m benchmarks.device

# The documentation site, in site/. Broken links and undocumented public names are errors.
docs: $(VENV)/.docs
	$(BIN)/python -m tools.site

lint: $(VENV)/.test
	$(BIN)/ruff check src tests benchmarks examples tools
	$(BIN)/ruff format --check src tests benchmarks examples tools
	$(BIN)/mypy

# Executes the notebooks in docs/tutorials and renews their outputs, which are committed.
tutorials: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.support.notebooks

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: constraints.txt pyproject.toml | $(BIN)/python
	@echo "Installing tombola into $(VENV): about 450 MB to download, 1.8 GB on disk, 2 to 4 minutes."
	$(PIP) --editable '.[onnx]'
	touch $@

$(VENV)/.test: constraints.txt pyproject.toml | $(BIN)/python
	@echo "Installing what the tests need into $(VENV): about 1 GB to download, 4 GB on disk, 4 to 8 minutes."
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.demo $(VENV)/.docs

$(VENV)/.docs: constraints.txt pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site

# The wheel in an empty environment, with the lowest versions that pyproject.toml promises, or with the newest. On x86
# Linux, PyPI's builds of torch bring CUDA: 3 GB. For others, set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# or TORCH, the version to use instead.
WHEEL_TESTS := cli/test_experiments.py cli/test_listing.py engines/sparse/test_engine.py engines/test_eager.py \
	experiments/test_recipe.py experiments/test_results.py report/test_figures.py report/test_page.py \
	stats/test_summary.py stats/test_verdict.py tickets/test_ticket.py zoo/datasets/test_mnist_and_cifar.py \
	zoo/datasets/test_parquet.py test_run_experiment.py

.PHONY: build test-lowest test-newest

build: $(VENV)/.test
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

test-lowest: VERSIONS = $(BIN)/python -m tests.support.lowest_versions
test-newest: VERSIONS = printf '%s\n'
test-lowest test-newest: test-%: build
	$(PYTHON) -m venv --clear build/$*
	$(VERSIONS) $(TORCH:%=torch==%) > build/$*/constraints.txt
	build/$*/bin/python -m pip install --constraint build/$*/constraints.txt dist/*.whl pytest pytest-xdist hypothesis
	build/$*/bin/tombola doctor
	OMP_NUM_THREADS=1 build/$*/bin/python -m pytest -n 2 --dist loadfile -W default $(WHEEL_TESTS:%=tests/%)
