# Every verb makes the environment first if it is not there. Options of a verb: .venv/bin/slimbench VERB --help
.DEFAULT_GOAL := help
.PHONY: help setup bench plan check distill family sweep test lint report leaderboard results list clean
.DELETE_ON_ERROR:

PYTHON ?= python3.11
UPSTREAM ?=
SUITE ?= embedded
DATA ?=
PROTOCOL ?=
TASKS ?=
SEEDS ?=
DEVICE ?= auto
RESULTS ?= results
CACHE ?= cache
CACHE_LIMIT ?=
FRAMES ?= auto
COMPUTE ?=
BUDGET ?=
RECIPE ?=
STEPS ?=
FAMILY ?= dvw
FAMILY_OPTIONS ?= --params 1.0M,2.5M --depths 1,2,3,6,12 --seeds 2,1 --steps 800 --seconds 12
SUITES ?= embedded
EXECUTOR ?= inprocess
WORKERS ?=

BIN := .venv/bin
RUN := $(BIN)/python -m harness
OPTIONS = $(if $(UPSTREAM),--upstream '$(UPSTREAM)') --suite '$(SUITE)' --device '$(DEVICE)' \
	--results '$(RESULTS)' --cache '$(CACHE)' \
	$(if $(DATA),--data '$(DATA)') $(if $(PROTOCOL),--protocol '$(PROTOCOL)') $(if $(TASKS),--tasks '$(TASKS)') $(if $(SEEDS),--seeds '$(SEEDS)') \
	$(if $(BUDGET),--budget '$(BUDGET)') $(if $(CACHE_LIMIT),--cache-limit '$(CACHE_LIMIT)') \
	--frames '$(FRAMES)' $(if $(COMPUTE),--compute '$(COMPUTE)')

help: ## this text
	@echo 'make VERB [VARIABLE=value ...], for example: make bench UPSTREAM=distilled_wavlm'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  UPSTREAM  name of an upstream (make list), or path of a card'
	@echo '  SUITE     name of a suite, or path of its file ($(SUITE))'
	@echo '  DATA      folder of data, for suites that do not make their own'
	@echo '  PROTOCOL  one of the suite'\''s protocols, as superb or fast of suite superb (the first)'
	@echo '  TASKS     only these tasks, as in TASKS=ks,pr (all of the suite)'
	@echo '  SEEDS     seeds per learning rate (what the suite says)'
	@echo '  DEVICE    auto, cpu or cuda ($(DEVICE): CUDA if there is one)'
	@echo '  RESULTS   folder of records and reports ($(RESULTS))'
	@echo '  CACHE     folder of data and features, safe to delete ($(CACHE))'
	@echo '  BUDGET    hours (2) or minutes (30m): the cheapest tasks that fit, by the plan'
	@echo '  CACHE_LIMIT  most GB of features to keep, least recently used go first'
	@echo '  FRAMES    cache or stream: from the disk, or encoded on demand ($(FRAMES): as they fit)'
	@echo '  COMPUTE   float32 or bfloat16, the precision of the upstream'\''s products (bfloat16 on CUDA)'
	@echo '  RECIPE    of distill: a name from docs/recipes.md, or path of a YAML file'
	@echo '  STEPS     updates, in place of what a recipe says'
	@echo '  FAMILY    of family and sweep: a name ($(FAMILY)); FAMILY_OPTIONS, see slimbench family --help'
	@echo '  SUITES    of sweep: names of suites ($(SUITES))'
	@echo '  EXECUTOR  who does the jobs of bench: inprocess, or ray, a cluster ($(EXECUTOR))'
	@echo '  WORKERS   jobs at once on Ray (as many as the cluster can do)'

setup: .venv/.ready ## make the environment .venv

.venv/.ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

bench: .venv/.ready ## run UPSTREAM on SUITE: records, table, report; goes on after an interruption
	@$(RUN) bench $(OPTIONS) --executor '$(EXECUTOR)' $(if $(WORKERS),--workers '$(WORKERS)')

plan: .venv/.ready ## say what a bench would do and what it costs
	@$(RUN) plan $(OPTIONS)

check: .venv/.ready ## try on made-up sound whether UPSTREAM keeps every promise
	@$(RUN) check --upstream '$(UPSTREAM)' $(if $(filter-out auto,$(DEVICE)),--device '$(DEVICE)')

distill: .venv/.ready ## make the student of RECIPE, STEPS long; DATA holds real/ and pretrain/; goes on after an interruption
	@$(RUN) distill '$(RECIPE)' --device '$(DEVICE)' $(if $(STEPS),--steps '$(STEPS)') $(if $(DATA),--data '$(DATA)')

family: .venv/.ready ## solve students of equal size (FAMILY_OPTIONS) and write their recipes to families/FAMILY
	@$(RUN) family --name '$(FAMILY)' $(FAMILY_OPTIONS) $(if $(STEPS),--steps '$(STEPS)')

sweep: .venv/.ready ## distil and bench all students of FAMILY on SUITES, cheapest first; goes on after an interruption
	@test -f 'families/$(FAMILY)/family.yaml' || $(RUN) family --name '$(FAMILY)' $(FAMILY_OPTIONS)
	@$(RUN) sweep '$(FAMILY)' --suites '$(SUITES)' --device '$(DEVICE)' --results '$(RESULTS)' --cache '$(CACHE)' \
		$(if $(DATA),--data '$(DATA)') $(if $(TASKS),--tasks '$(TASKS)')

test: .venv/.ready ## run the tests, a file at a time on each of at most four cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: .venv/.ready ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

report: .venv/.ready ## write tables and figures from the records in RESULTS
	@$(RUN) report --results '$(RESULTS)'

leaderboard: .venv/.ready ## page and report of records, accepted submissions and published rows: RESULTS/site/index.html, RESULTS/report
	@$(RUN) report --results '$(RESULTS)' --accepted
	@$(RUN) site --results '$(RESULTS)'

results: .venv/.ready ## list the records in RESULTS
	@$(RUN) results --results '$(RESULTS)'

list: .venv/.ready ## list upstreams, tasks and suites
	@for what in upstreams tasks suites; do echo "$$what:"; $(RUN) list $$what || exit; echo; done

clean: ## delete what the tools cached; environment, results, data and features stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis build
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
