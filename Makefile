# `make run` and `make test` set everything up first, in .venv, and do not install again what is there.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
# torch and torchvision fit each other only as a pair, built for the same device.
TORCH := $(shell sed -nE 's/^(torch(vision)?==.*)/\1+cpu/p' constraints.txt)
CPU_BUILDS := https://download.pytorch.org/whl/cpu

.PHONY: run test test-unit test-containers images lint check bench docs setup lock clean

run: setup  ## Train, judge, export and register the real MNIST through the compiled pipeline.
	$(BIN)/retrain run

# A process on each core that a container leaves us, so each with one thread; what stands in one file shares servers and
# trained models.
CORES = $$($(BIN)/python -c 'from components.loader.machine import cores; print(cores())')
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(CORES)

test: test-unit  ## Run all the tests: the quick ones, then the slow ones.
	$(PYTEST) --dist loadfile -m slow

test-unit: setup  ## Run the quick tests.
	$(PYTEST) -m "not slow"

# The names of the images have one home, the settings.
image = $(shell sed -n 's/^$(1)_IMAGE = "\(.*\)"/\1/p' pipelines/settings.py)
BUILD ?= docker build

images:  ## Build the images of the steps: with Docker, or with what BUILD says, such as `buildah bud --layers`.
	$(BUILD) --file docker/Dockerfile --target small --tag $(call image,SMALL) .
	$(BUILD) --file docker/Dockerfile --target train --tag $(call image,TRAIN) .

test-containers: setup  ## Build the images on a bare Debian, as root, and run every step in a container of its own.
	.ci/containers sh -c '$(MAKE) images && $(BIN)/python -m pytest -m containers'

lint: setup  ## Check style, types and who imports whom.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check: lint test  ## Everything that CI checks.

bench: setup  ## Measure what the README claims, side by side with what one would do otherwise.
	$(BIN)/python -m benchmarks

docs: setup  ## Write what is made from the code: the reference, the pipeline, the networks, the README's picture.
	$(BIN)/python -m pipelines.reference > docs/reference.md
	$(BIN)/retrain compile --output pipelines/retrain.yaml
	RETRAIN_UPDATE_DOCS=1 $(BIN)/python -m pytest tests/test_main_job.py tests/test_training_docs.py tests/test_models_docs.py

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed, as python3 or, say, python3.12: apt-get install python3"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "error: Python's venv is needed: apt-get install $(notdir $(PYTHON))-venv"; exit 2; }
	@echo "Setting up $(VENV); this takes a few minutes, once."
	@$(PYTHON) -m venv $(VENV) && $(PIP) install --upgrade 'pip>=25.3'
	@# Without an NVIDIA GPU the builds for the CPU fit: they need 5 GB less. Where they cannot be had, the registry's serve.
	@nvidia-smi -L >/dev/null 2>&1 || \
		$(PIP) install --no-deps --retries 2 --timeout 10 --index-url $(CPU_BUILDS) $(TORCH) >/dev/null 2>&1 || \
		echo "torch's CPU builds cannot be reached from here; taking the default ones, which run on CPU too."
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -c 'import torch, torchvision' || \
		{ echo "error: torch and torchvision do not fit each other; remove $(VENV) and call make again"; exit 1; }
	@touch $@

lock:  ## Pin the newest versions that pyproject.toml admits, in constraints.txt.
	@rm -rf .lock && $(PYTHON) -m venv .lock && .lock/bin/python -m pip install --quiet --upgrade pip
	@.lock/bin/python -m pip install --quiet '.[dev]'
	@{ echo "# Pins every package of every extra; made by 'make lock'."; \
		.lock/bin/python -m pip freeze --exclude retrain | sed 's/+cpu$$//'; } > constraints.txt
	@rm -rf .lock build

clean:  ## Remove what was set up here; the store stays.
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache
