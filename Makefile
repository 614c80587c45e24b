# make demo   the whole chain on the embedded default: environment, inputs, run, table, report
# make test   all tests
# make lint   ruff, mypy, snakefmt, snakemake --lint
# make lock   resolve envs/lock.txt again from pyproject.toml

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
.PHONY: demo test lint lock install

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml envs/lock.txt envs/torch.txt envs/install.sh
	PYTHON=$(PYTHON) bash envs/install.sh $(VENV)

demo: install
	@$(BIN)/python workflow/scripts/start.py --profile local
	@$(BIN)/excise show results/demo/*/summary.json

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

lock: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 pyproject.toml --all-extras \
		--constraint envs/torch.txt --no-emit-package torch --generate-hashes --output-file envs/lock.txt
