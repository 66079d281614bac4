# make demo   train and judge a forecast on real measurements
# make test   what .ci/run checks, but for SLURM
# Needs python3.11 with pip, make and git. `make help` lists the rest.

PYTHON ?= python3.11
VENV ?= .venv
# The build of torch: a requirement and the package index that serves it; see README, "Builds of torch".
# The choice of the last `make env` holds until another is given.
-include $(VENV)/choices.mk
TORCH ?=
TORCH_INDEX ?=
VENV_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PINS := constraints.txt settings.ini pyproject.toml setup.py .ci/jupyter_server_config.py
CHOICES := $(TORCH) $(TORCH_INDEX) $(VENV_ARGS)
STAMP := $(VENV)/installed-$(firstword $(shell echo '$(CHOICES)' | cksum))
WORKERS ?= 2
LAB_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help env data demo worlds ablation ablation-quick test test-slow test-slurm test-oldest-torch package test-package archive lab lint docs pictures clean

# $(call step,name,command): run the command between two lines that name it, and time it.
define step
@printf '\n== %s\n' '$(1)'; start=$$(date +%s); \
{ $(2); } || { code=$$?; printf '== %s: FAILED (exit code %s)\n' '$(1)' $$code; exit $$code; }; \
printf '== %s: %s s\n' '$(1)' $$(( $$(date +%s) - start ))
endef

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile

# ---- environment

env: $(STAMP) ## create .venv from the exact versions in constraints.txt

# pip of $(PYTHON) installs pip into the environment, because Debian's python3.11 has no ensurepip.
# Other choices start from an empty environment; changed pins update the existing one.
$(STAMP): $(PINS)
	@command -v $(PYTHON) >/dev/null || { echo "error: no $(PYTHON) here; install Python 3.11, or say where \
	it is: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(call step,environment (2 GB; 1 to 3 minutes),$(INSTALL))

define INSTALL
{ test -e $@ || $(PYTHON) -m venv --clear --without-pip $(VENV_ARGS) $(VENV); } \
&& printf 'TORCH ?= %s\nTORCH_INDEX ?= %s\nVENV_ARGS ?= %s\n' '$(TORCH)' '$(TORCH_INDEX)' '$(VENV_ARGS)' >$(VENV)/choices.mk \
&& sed '$(if $(TORCH),/^torch==/d)' constraints.txt >$(VENV)/pins.txt \
&& $(PYTHON) -m pip --disable-pip-version-check --python $(BIN)/python install --quiet -c $(VENV)/pins.txt pip setuptools wheel \
&& $(INSTALL_TORCH) \
&& $(PIP) install --no-build-isolation -c $(VENV)/pins.txt $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') -e '.[dev]' \
&& $(PIP) check \
&& mkdir -p $(VENV)/etc/jupyter && cp .ci/jupyter_server_config.py $(VENV)/etc/jupyter \
&& rm -f $(VENV)/installed-* && touch $@
endef

# First and alone, so that no other index can give another build; the pin accepts any local version.
INSTALL_TORCH = $(if $(TORCH)$(TORCH_INDEX),$(PIP) install --no-deps $(if $(TORCH_INDEX),--index-url '$(TORCH_INDEX)') \
'$(or $(TORCH),$(shell grep '^torch==' constraints.txt))',true)

# ---- data and runs

# torch's threads wait without spinning: on two cores with anything else running, a training step
# of 0.12 s took 0.57 s with spinning threads.
export OMP_WAIT_POLICY ?= PASSIVE

# The store is rebuilt when it is missing, cannot be opened, or was built from another manifest.
define BUILD_STORE
from aqnet.cli import main
from aqnet.data.manifest import load_manifest, resolve_manifest
from aqnet.data.store import open_store
from aqnet.errors import StoreError
from aqnet.io import station_store

path = station_store("beijing")
try:
    open_store(path, load_manifest(resolve_manifest("beijing")))
except StoreError as error:
    print(f"{str(error).splitlines()[0]}: building it", flush=True)
    main(["data", "beijing", "--force"], prog_name="aqnet")
else:
    print(f"{path} is there")
endef
export BUILD_STORE

data: env ## build the Beijing store (half a minute, 1.1 GB in data/), unless it is there
	$(call step,data,$(BIN)/python -c "$$BUILD_STORE")

demo: data ## train and judge the Beijing forecast; ends with the path of the report
	$(call step,training,$(BIN)/aqnet run nbs/train/forecast.ipynb)
	$(call step,evaluation,$(BIN)/aqnet run nbs/evaluate/beijing.ipynb)
	@printf '\nreport: %s\n' "$$(ls -t "$${AQNET_RUNS:-runs}"/*/report.html | head -n 1)"

# ---- the physics experiment (nbs/60_physics_experiment.ipynb)

SWEEPS := sealed arms still open transport wind flat sealed_64 beijing

worlds: env ## simulate the worlds of the physics experiment (estimated: half an hour, 7 GB in data/)
	$(call step,worlds,AQNET=$(BIN)/aqnet nbs/experiments/worlds.sh)

# A sweep that is started again does what is missing. One thread a run: WORKERS runs share the cores.
ablation: worlds data ## the physics experiment: 176 runs, some hours on 2 cores; ends with tables and figures
	$(call step,runs,for name in $(SWEEPS); do OMP_NUM_THREADS=1 $(BIN)/aqnet sweep run "nbs/experiments/physics_$$name.yaml" --parallel $(WORKERS) || exit; done)
	$(call step,results,$(BIN)/aqnet run nbs/evaluate/contrasts.ipynb)

ablation-quick: env ## its main arms in the development world, one seed; about 7 minutes on 2 cores, and 5 for its world
	$(call step,world,AQNET=$(BIN)/aqnet nbs/experiments/worlds.sh carried)
	$(call step,runs,OMP_NUM_THREADS=1 $(BIN)/aqnet sweep run nbs/experiments/physics_quick.yaml --parallel $(WORKERS))

# ---- checks

# One thread a process: two workers and their kernels share the cores.
TEST := OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest

test: data ## notebooks in sync, clean and executed (all of them), and all tests
	$(call step,notebooks in sync and clean,$(TEST) -q tests/test_sync.py)
	$(call step,notebooks executed and tests,$(TEST) -n $(WORKERS) -m "not slow" --durations=15 --ignore=tests/test_sync.py)

test-slow: data ## the heavier tests
	$(call step,slow tests,$(TEST) -n $(WORKERS) -m slow)

test-slurm: data ## training on a real SLURM of 3 nodes on this machine (Debian 12, root)
	$(call step,packages of SLURM,slurm/local_cluster.sh packages)
	$(call step,tests under SLURM,AQNET_SLURM=1 $(TEST) -q tests/slurm --durations=15)

OLDEST_TORCH := torch==2.4.0
OLDEST_TESTS := tests/test_*attention.py tests/test_aggregation.py tests/test_layers.py tests/test_network.py tests/test_network_order.py tests/test_domain.py \
  tests/test_published.py tests/test_loss.py tests/test_optimisation.py tests/test_schedule.py tests/test_loop.py \
  tests/test_resume.py tests/test_ddp.py tests/test_checkpoint*.py tests/test_grid_forecaster.py tests/test_train_forecasters.py

test-oldest-torch: ## model and training with the oldest torch, in .venv-oldest (6 GB, 15 minutes)
	$(MAKE) env VENV=.venv-oldest TORCH='$(OLDEST_TORCH)'
	$(call step,oldest torch,OMP_NUM_THREADS=1 MPLBACKEND=Agg .venv-oldest/bin/python -m pytest -q -n $(WORKERS) -m "not slow" $(OLDEST_TESTS))

# The wheel is built from the source distribution: what is missing there fails here.
package: env ## wheel and source distribution in dist/
	$(call step,packages,rm -rf dist build && $(BIN)/python -m build --no-isolation --outdir dist .)

# The script is compiled here and run there: as on a cluster, where nothing of Jupyter is installed.
PACKAGE_ENV := .venv-package
define TEST_PACKAGE
rm -rf $(PACKAGE_ENV) && $(PYTHON) -m venv --without-pip $(PACKAGE_ENV) \
&& $(PYTHON) -m pip --disable-pip-version-check --python $(PACKAGE_ENV)/bin/python install --quiet -c $(VENV)/pins.txt \
$(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') dist/aqnet-*.whl \
&& $(BIN)/python -m pip --python $(PACKAGE_ENV)/bin/python check \
&& $(PACKAGE_ENV)/bin/aqnet --version \
&& $(BIN)/aqnet compile nbs/train/forecast.ipynb --output $(PACKAGE_ENV)/forecast.py \
&& $(PACKAGE_ENV)/bin/python $(PACKAGE_ENV)/forecast.py --run-dir $(PACKAGE_ENV)/run --max-steps 2 \
  --max-train-samples 64 --max-validation-samples 64 --correction-share 1.0
endef

test-package: package data ## install the wheel alone into an empty environment and train two steps with it
	$(call step,package in an environment of its own,$(TEST_PACKAGE))

archive: package ## one zip file to deposit: code, manifests, small data, results, packages, digests
	$(call step,archive,$(BIN)/python .ci/archive.py)

lint: env ## ruff
	$(BIN)/ruff check .

# ---- for people

# Given as a file, the notebook would make nbs/ the root, and the hook that cleans on saving would find nothing.
lab: env ## JupyterLab on the index notebook
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/nbs/index.ipynb $(LAB_ARGS)

docs: env ## the notebooks as a web site in site/ (no network needed)
	$(call step,documentation,NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet && echo "site/index.html")

pictures: data ## draw the pictures of README anew (the forecast is that of the newest run of make demo)
	$(call step,pictures,$(BIN)/python .ci/pictures.py)

clean: ## remove the environment, caches and the site; data/ and runs/ stay
	rm -rf $(VENV) .venv-oldest $(PACKAGE_ENV) site .cache dist build *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks
	find aqnet tests nbs -name __pycache__ -o -name .ipynb_checkpoints -o -name .last_checked | xargs rm -rf
