.PHONY: run test test-long check fix clean
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

run: $(VENV)/.runtime
	$(BIN)/python app.py

# Most tests wait for something half of the time, so as many files as there are cores are tested at once. Runs of
# fine-tuning give way to everybody, so those that train come alone.
BESIDE := --numprocesses auto --maxprocesses 4 --dist loadfile

# Playwright keeps an event loop running in its thread, so the browser tests have a process of their own.
test: check
	$(BIN)/python -m pytest --ignore tests/browser -m "not long and not trains" $(BESIDE)
	$(BIN)/python -m pytest --ignore tests/browser -m "not long and trains"
	$(BIN)/python -m pytest tests/browser

test-long: $(VENV)/.development $(VENV)/.chromium
	$(BIN)/python -m pytest -m "long or not long" --ignore tests/browser
	$(BIN)/python -m pytest -m "long or not long" tests/browser

check: $(VENV)/.development $(VENV)/.chromium
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy .

fix: $(VENV)/.development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/.development: requirements-dev.txt requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@ $(VENV)/.runtime

# Debian's Chromium where apt is there, else Playwright's own.
$(VENV)/.chromium: $(VENV)/.development
	command -v chromium >/dev/null || { command -v apt-get >/dev/null && apt-get update -qq && apt-get install -y -qq chromium; } \
		|| $(BIN)/python -m playwright install --with-deps chromium
	touch $@
