# make quickstart   train a narrow two-tower AlexNet on two simulated devices
# make test         prove what matters while one waits: parity, communication, formulas, order, resuming, refusals
# make test-all     prove everything, with real processes, kernels and schedulers
# make lint         ruff, and mypy on the core
# make benchmark    one training step against PyTorch's and plain JAX's (needs torch, see README.md)
# make clean        remove the environment; runs and data stay

PYTHON ?= python3
VENV ?= .venv
# The CUDA build where an NVIDIA GPU is visible, else the CPU one.
REQUIREMENTS ?= $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && echo requirements.txt || echo requirements-cpu.txt)
READY = $(VENV)/ready-$(REQUIREMENTS)
# Large pages make a training step up to a quarter faster on CPU.
RUN = GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(VENV)/bin/python
# A run whose worker has crashed would wait for ever for the one that replaces it (pytest-xdist 3.8).
PYTEST = $(RUN) -m pytest -n auto --max-worker-restart 0 --dist loadfile --no-loadscope-reorder

.PHONY: quickstart test test-all lint benchmark clean

quickstart: $(READY)
	$(RUN) -m alexnet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

test: $(READY)
	$(PYTEST) -m "not slow"

test-all: $(READY)
	$(PYTEST)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

benchmark: $(READY)
	$(RUN) -m benchmarks.step

$(READY): requirements.txt requirements-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); try make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "installing $(REQUIREMENTS) into $(VENV), a few minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	@touch $@

clean:
	rm -rf $(VENV)
