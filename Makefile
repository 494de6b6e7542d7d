# Every target sets up what it needs, says so, and skips what is already there.
.DEFAULT_GOAL := help
.PHONY: help demo local test test-fast lint format bench chaos fuzz train pictures lock clean
SHELL := /bin/bash
RUN  := .venv
TEST := .venv-test

help: ## show this help
	@printf 'Lesion Triage: the urgent scan is read first. Not for diagnosis.\n\n'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'
	@printf '\n  ARGS="…" is handed on: make demo ARGS="--exit", make test ARGS="-k ordering"\n'

demo: ## start the embedded stack, send head CTs, watch the bleed jump to the top
	@.make/env.sh $(RUN) requirements/local.txt
	@$(RUN)/bin/triage demo $(ARGS)

local: ## start the embedded stack and keep it up until Ctrl-C
	@.make/env.sh $(RUN) requirements/local.txt
	@$(RUN)/bin/triage local $(ARGS)

test: ## run every test (real servers on free ports; about 20 minutes on 2 cores)
	@.make/env.sh $(TEST) requirements/test.txt
	@.make/programs.sh
	@PATH="$$PATH:/usr/sbin" $(TEST)/bin/pytest $(ARGS)

test-fast: ## run the tests that start no server
	@.make/env.sh $(TEST) requirements/test.txt
	@$(TEST)/bin/pytest -m "not stack and not kafka" $(ARGS)

lint: ## ruff and mypy over every package, tests included
	@.make/env.sh $(TEST) requirements/test.txt
	@$(TEST)/bin/ruff check .
	@$(TEST)/bin/ruff format --check .
	@$(TEST)/bin/mypy

format: ## put the code into the project's format
	@.make/env.sh $(TEST) requirements/test.txt
	@$(TEST)/bin/ruff check --fix .
	@$(TEST)/bin/ruff format .

bench: ## measure, as ratios in one run; results go to bench/results/
	@.make/env.sh $(TEST) requirements/test.txt
	@$(TEST)/bin/python -m bench $(ARGS)

chaos: ## strike the real stack with seeded faults and count what is lost: ARGS="--fault NAME --seed N --runs N --json"
	@.make/env.sh $(TEST) requirements/test.txt
	@.make/programs.sh
	@PATH="$$PATH:/usr/sbin" $(TEST)/bin/python -m chaos $(ARGS)

fuzz: ## throw a million malformed inputs at every door (ARGS="--inputs N --json")
	@.make/env.sh $(TEST) requirements/test.txt
	@$(TEST)/bin/python -m chaos.fuzz $(ARGS)

train: ## make the default model again from its seed: phantoms, fit, evaluate, export
	@.make/env.sh $(TEST) requirements/test.txt
	@$(TEST)/bin/triage train --config training/configs/head_ct_lesion.toml $(ARGS)

pictures: ## draw the README's picture of the demo again (needs tmux)
	@.make/env.sh $(RUN) requirements/local.txt
	@.make/pictures.sh

USES := producer worker worklist local train
COMPILE := uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --group build
lock: ## make the hash-locked requirements again, one file per use (needs uv)
	@for use in $(USES); do $(COMPILE) --extra $$use pyproject.toml -o requirements/$$use.txt; done
	@$(COMPILE) --extra local --extra train --group test --group lint pyproject.toml -o requirements/test.txt

clean: ## remove the environments and caches inside the clone
	@rm -rf $(RUN) $(TEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info dist runs
