# The pinned environment lives in .venv; every target makes it first where it is missing or older than the lock.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# Not in the lock: on Linux PyPI's build brings about 5 GB of CUDA. Where pip is set up to find a CPU build of this
# version, in an index or a folder of wheels, it takes that.
TORCH := torch==2.13.0
TORCH_STAMP := $(VENV)/.installed-$(TORCH)

.PHONY: install demo test test-slow test-torch test-browser nightly lint docs notebooks format lock bench

install: $(STAMP)

$(STAMP): requirements.lock setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "slimjax needs Python 3.11 or newer; $(PYTHON) is %d.%d. Try: make PYTHON=python3.11 install" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $(STAMP)

demo: $(STAMP)
	$(RUN) -m slimjax.main --workdir=runs/digits

# Most of these tests compile more than they compute: without LLVM's optimisation that takes half the time. Programs
# that they start in other processes are compiled as users' are.
test: $(STAMP)
	XLA_FLAGS=--xla_backend_optimization_level=0 $(RUN) -m pytest -m "not slow and not torch and not browser"

test-slow: $(STAMP)
	$(RUN) -m pytest -m "slow and not torch and not browser"

$(TORCH_STAMP): $(STAMP)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint requirements.lock $(TORCH)
	@touch $@

test-torch: $(TORCH_STAMP)
	$(RUN) -m pytest -m torch

# Playwright drives a Chromium that is there; it brings none of its own.
test-browser: $(STAMP)
	@for name in "$(CHROMIUM)" chromium chromium-browser google-chrome; do command -v "$$name" >/dev/null && exit 0; done; \
		echo "test-browser needs Chromium: apt-get install chromium, or make test-browser CHROMIUM=PATH" >&2; exit 1
	CHROMIUM="$(CHROMIUM)" $(RUN) -m pytest -m browser
	@echo "what Chromium showed: build/screenshots"

nightly: test test-slow test-torch test-browser

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(STAMP)
	JAX_PLATFORMS=cpu $(RUN) -m sphinx --quiet --nitpicky --fail-on-warning --keep-going --fresh-env docs build/docs
	$(RUN) docs/check_links.py build/docs README.md experiments/notebooks/*.ipynb

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

lock: $(STAMP)
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
		--no-emit-index-url --no-emit-find-links --extra test --extra dev --extra docs setup.cfg \
		--output-file requirements.lock

bench: $(STAMP)
	$(RUN) experiments/benchmarks/train_step.py

# Runs them from empty folders, and writes what they print and draw into them.
notebooks: $(STAMP)
	$(RUN) experiments/notebooks/execute.py
