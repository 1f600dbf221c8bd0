# Everything goes through scripts/setup.sh first; it costs a moment when nothing is to be done.
#   PYTHON=python3.12        the Python that .venv is made with
#   HOROVOD=no               leave Horovod's build out
#   ARGS="-k resnet -x"      arguments for pytest (make test) or for the demo (make demo)

BIN := .venv/bin
SETUP := PYTHON="$(PYTHON)" sh scripts/setup.sh $(if $(filter no,$(HOROVOD)),--without-horovod)
# What runs with TensorFlow 2.15, Keras 2 and tensorflow-addons, too.
ADDONS_TESTS := tests/tfkfac tests/distributed/test_keras_2_ranks.py \
    tests/models/test_addons_training.py

export TF_CPP_MIN_LOG_LEVEL ?= 3
export KERAS_BACKEND := tensorflow

.PHONY: help setup setup-addons demo test test-addons lint format horovod horovod-addons
.PHONY: clean distclean

help:
	@echo "make demo       train with SGD, K-FAC, and K-FAC on two ranks, and compare; then translate"
	@echo "make test       lint, format check, types, tests; with Python 3.11 test-addons, too"
	@echo "make test-addons   the optimizer's tests with TensorFlow 2.15 and tensorflow-addons"
	@echo "make setup      only make or update .venv (demo and test do it by themselves)"
	@echo "make horovod    build Horovod, again if it failed before"
	@echo "make lint       ruff and mypy alone"
	@echo "make format     let ruff rewrite what it can"
	@echo "make clean      remove .venv, .venv-addons and all that tools left; built Horovod wheels stay"
	@echo "make distclean  remove those too"
	@echo "Variables: PYTHON=python3.12, HOROVOD=no, ARGS=\"-k resnet\" (for test and demo)"

setup:
	@$(SETUP)

demo: setup
	@$(BIN)/python -m models.demo $(ARGS)
	@$(BIN)/python -m nmt.demo

lint: setup
	@echo "== ruff check"
	@$(BIN)/ruff check .
	@echo "== ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "== mypy"
	@$(BIN)/mypy

test: lint
	@echo "== pytest"
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)
	@if $(BIN)/python -c "import sys; sys.exit(sys.version_info >= (3, 12))"; then \
	    $(MAKE) --no-print-directory test-addons; \
	else \
	    echo "== TensorFlow 2.15 needs Python 3.11 or older: make test-addons left out"; \
	fi

setup-addons:
	@$(SETUP) --addons

test-addons: setup-addons
	@echo "== pytest, TensorFlow 2.15, Keras 2, tensorflow-addons"
	@.venv-addons/bin/python -m pytest $(ADDONS_TESTS) $(ARGS)

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

horovod:
	@PYTHON="$(PYTHON)" sh scripts/setup.sh --horovod

horovod-addons:
	@PYTHON="$(PYTHON)" sh scripts/setup.sh --addons --horovod

clean:
	rm -rf .venv .venv-addons .cache/logs .cache/horovod-build .cache/removed-venv*
	rm -rf build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf .cache
