# Each target prepares what it needs and may be repeated. Nothing has to be installed but Python 3.11 with pip.
PYTHON ?= python3
UV := .tools/uv/bin/uv
RUN := $(UV) run --no-sync
export UV_PYTHON_DOWNLOADS := never

.PHONY: demo test check format deep bench clean

demo: .venv/ready
	$(RUN) coatcheck demo

test: .venv/dev-ready
	$(RUN) pytest -n 2

check: .venv/dev-ready
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) pyright
	$(RUN) pytest -q -p no:randomly tests/test_floors.py

format: .venv/dev-ready
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

# The same suite, searched deeper: more Hypothesis examples, more seeds of the shuffled loop.
deep: .venv/dev-ready
	COATCHECK_DEEP=1 $(RUN) pytest -n 2 --timeout 3600

bench: .venv/dev-ready
	$(UV) sync --locked --all-extras --group bench --python $(PYTHON)
	for question in hit hit_concurrent stampede expiry memory mutable workflow cold growth sqlite; do \
	  $(RUN) python -m benchmarks.$$question || exit 1; done

clean:
	rm -rf .venv .tools dist

$(UV):
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools/uv 'uv>=0.9,<1'

# What the package needs. Inexact: tools that are there already stay.
.venv/ready: $(UV) pyproject.toml uv.lock
	$(UV) sync --locked --all-extras --no-default-groups --inexact --python $(PYTHON)
	touch $@

# The same and the tools.
.venv/dev-ready: $(UV) pyproject.toml uv.lock
	$(UV) sync --locked --all-extras --python $(PYTHON)
	touch .venv/ready $@
