# The two commands are `make serve` and `make test`; each does its own set-up in .venv.
PYTHON ?= python3
PROFILE ?= gemma-3-270m
ARGS ?=
# cpu or gpu; by the NVIDIA driver if not given
DEVICE ?=

.PHONY: help setup setup-dev setup-bench serve demo check test bench reliability

help:  ## Show this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

serve: setup  ## Serve a profile on port 8000: make serve [PROFILE=name-or-path] [ARGS="--set key=value"]
	@exec .venv/bin/gemma-serve serve "$(PROFILE)" $(ARGS)

demo: setup  ## Serve, with Prometheus and our rules beside it: make demo [PROFILE=...] [ARGS="--port 9000"]
	@exec .venv/bin/python -m scripts.demo "$(PROFILE)" $(ARGS)

test: setup-dev  ## Run lint, types and all tests: make test [ARGS="-k word"]
	@scripts/check
	@.venv/bin/python -m pytest -n 2 --dist loadgroup $(ARGS)

bench: setup-bench  ## Measure a short cell of the embedded model: make bench [PROFILE=...] [ARGS="--concurrency 16"]
	@.venv/bin/python -m benchmarks run "profile:$(PROFILE)" --input 64 --output 32 $(ARGS)

reliability: setup-dev  ## Send every bad input there is, or soak: make reliability [ARGS="--only D,L" or "--soak 60"]
	@.venv/bin/python -m tests.reliability $(ARGS)

check: setup-dev  ## Run lint and types only
	@scripts/check

setup:  ## Make .venv with .venv/bin/gemma-serve in it
	@$(PYTHON) scripts/setup.py $(DEVICE:%=--device %)

setup-bench:
	@$(PYTHON) scripts/setup.py $(DEVICE:%=--device %) bench

setup-dev:
	@$(PYTHON) scripts/setup.py $(DEVICE:%=--device %) dev bench
