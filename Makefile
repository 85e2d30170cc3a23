# make train     set up, then fine-tune, generate and score on this machine's CPU, offline
# make check     set up, then lint, types and the tests that are not slow: for daily work
# make test      set up, then lint, types and all tests
# make lint      style and types only
# make app       the web app
# make notebooks write notebooks/ from the scripts
#   REPOSITORY=https://github.com/me/image2cad TAG=v1   and this address into them, with badges
# make zip       image2cad.zip, to be uploaded to Colab: what is committed
# make colab-check  run the notebook in Colab's versions; installs several GB into .venv-colab
# make bench     run every measurement in benchmarks/
#
# Set-up makes .venv once and installs again only after a requirements file changed.
# Another interpreter: make train PYTHON=/path/to/python3.12
# Extra arguments:     make train ARGS="--num-train-epochs 5"

VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=

# The first that starts, has a supported version and can make virtual environments.
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10
USABLE := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c '$(USABLE)' >/dev/null 2>&1 && echo $$p && break; done)

INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

# The browser that a test drives: Debian's, where this user may install it.
CHROMIUM := command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && \
	apt-get update -qq >/dev/null 2>&1 && apt-get install -y -qq chromium >/dev/null 2>&1; }

.PHONY: train check test lint app notebooks bench zip colab-check
.DELETE_ON_ERROR:

train: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(PY) train_cpu.py $(ARGS)

PYTEST := HF_HUB_OFFLINE=1 $(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: lint
	$(PYTEST) -m "not slow" $(ARGS)

test: lint
	$(PYTEST) $(ARGS)

lint: $(INSTALLED_DEV)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

app: $(INSTALLED)
	$(PY) app.py $(ARGS)

bench: $(INSTALLED)
	@set -e; for script in benchmarks/*.py; do \
		if [ -f "$$script" ]; then echo "== $$script"; PYTHONPATH=. $(PY) "$$script"; fi; done

# --update keeps the ids of cells, so that nothing changes where nothing changed
KERNEL := "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
COLAB := "accelerator": "GPU", "colab": {"gpuType": "T4"}
KAGGLE := "kaggle": {"accelerator": "nvidiaTeslaT4", "isGpuEnabled": true, "isInternetEnabled": true}
JUPYTEXT := $(PY) -m jupytext --quiet --update --from py:percent --to ipynb

NOTEBOOKS ?= notebooks

notebooks: $(INSTALLED_DEV)
ifeq ($(origin REPOSITORY),command line)
	@$(PY) notebooks/address.py "$(REPOSITORY)" "$(TAG)"
endif
	@mkdir -p $(NOTEBOOKS)
	$(JUPYTEXT) --update-metadata '{$(KERNEL), $(COLAB)}' \
		--output $(NOTEBOOKS)/colab_training.ipynb colab_training.py
	$(JUPYTEXT) --update-metadata '{$(KERNEL), $(KAGGLE)}' \
		--output $(NOTEBOOKS)/kaggle_training.ipynb kaggle_training.py
	$(JUPYTEXT) --update-metadata '{$(KERNEL)}' \
		--output $(NOTEBOOKS)/train_cpu.ipynb train_cpu.py
	$(JUPYTEXT) --update-metadata '{$(KERNEL)}' \
		--output $(NOTEBOOKS)/evaluate.ipynb score_predictions.py
	$(JUPYTEXT) --update-metadata '{$(KERNEL)}' \
		--output $(NOTEBOOKS)/train_reward.ipynb train_reward.py

zip:
	git archive --prefix=image2cad/ --output=image2cad.zip HEAD
	@ls -l image2cad.zip

# Colab's Python is 3.13; where it is not to be had, another one is taken, and said.
COLAB_VENV ?= .venv-colab
COLAB_PYTHON ?= $(shell for p in python3.13 $(CANDIDATES); do \
	$$p -c '$(USABLE)' >/dev/null 2>&1 && echo $$p && break; done)
COLAB_PIP = $(COLAB_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

colab-check: zip
	$(COLAB_PYTHON) -m venv $(COLAB_VENV)
	$(COLAB_VENV)/bin/python -m pip uninstall --quiet --yes bitsandbytes cadquery manifold3d trimesh
	$(COLAB_PIP) -r tests/colab_image.txt
	$(COLAB_VENV)/bin/python --version
	$(COLAB_VENV)/bin/python tests/colab_check.py image2cad.zip

$(PY):
	@if [ -z "$(PYTHON)" ]; then \
		echo "error: no Python 3.10 to 3.13 with venv found; say make PYTHON=/path/to/python3" >&2; \
		exit 2; fi
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): requirements.txt constraints.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(INSTALLED_DEV): requirements-dev.txt $(INSTALLED)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt \
		-c constraints.txt
	@$(CHROMIUM) || echo "no Chromium here and none could be installed: the page's test is skipped"
	@touch $@
