# make install   the environment, into .venv
# make demo   the whole chain on the embedded default: environment, inputs, run, table, report
# make test   all tests
# make docs   the documentation, into site/
# make docs-numbers   the demo's table, plot and findings, into docs/ and README.md
# make lint   ruff, mypy, snakefmt, snakemake --lint
# make lock   resolve envs/lock.txt again from pyproject.toml

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
.PHONY: demo test docs docs-numbers lint lock install

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml envs/lock.txt envs/torch.txt envs/install.sh
	PYTHON=$(PYTHON) bash envs/install.sh $(VENV)

demo: install
	@$(BIN)/python workflow/scripts/start.py --profile local
	@$(BIN)/excise show results/demo/*/summary.json

test: install
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --no-loadscope-reorder

docs: install $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: envs/docs.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r envs/docs.txt
	@touch $@

docs-numbers: demo
	$(BIN)/python docs/fill.py results/demo/*/summary.json

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
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --group docs --constraint envs/lock.txt \
		--generate-hashes --output-file envs/docs.txt
