# The only entry point. `make` alone prints what there is and what it costs.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: own pdf help setup data book smoke sweep test test-all slow lint unit notebooks-test browser lab sync fuzz bench fidelity findings lock audit clean

# laptop (the parameters cells as they are), or the name of a file in params/
PROFILE ?= laptop
# data sets, runs and records: where wamlib.config.home says
DATA := $(or $(WAMLIB_HOME),data)
# chapters executed side by side; each takes about 1 GB
JOBS ?= 2
# tcp://host:8786 of a Dask scheduler whose workers train and execute; they share this folder
DASK ?=
ON := $(if $(DASK),--dask $(DASK))
MAKEFLAGS += --no-print-directory --jobs=$(JOBS)

# The active environment if wamlib is installed in it, otherwise .venv, which is made once.
# -I: the folder wamlib/ here must not count as an installed package.
HERE := $(shell python -I -c 'import importlib.metadata as m, sys; m.version("wamlib"); print(sys.executable)' 2>/dev/null)
ifeq ($(HERE),)
VENV := .venv
BIN := $(CURDIR)/.venv/bin
READY := .venv/.ready
else
BIN := $(patsubst %/,%,$(dir $(HERE)))
READY := book/_build/.ready-active
endif
PYTHON := $(BIN)/python

# the chapter that `make own` executes, with PARAMS=FILE.yml
NOTEBOOK ?= 61_your_own
PARAMS := $(if $(filter laptop,$(PROFILE)),,params/$(PROFILE).yml)
ALL := $(basename $(notdir $(wildcard notebooks/*.ipynb)))
# The longest chapters start first, so that nothing waits for them in the end.
CHAPTERS := $(filter 33_% 35_% 40_%,$(ALL)) $(filter-out 33_% 35_% 40_%,$(ALL))
EXECUTED := $(CHAPTERS:%=book/notebooks/%.ipynb)
PACKAGE := $(shell find wamlib -name '*.py' -o -name '*.mplstyle' -o -name '*.css' -o -name '*.js')
PAGES := $(wildcard book/_templates/* book/*.md book/api/*.md book/*.yml book/*.bib book/_static/* book/_ext/*.py book/tools/*.py)
HTML := book/_build/html/index.html
# What is published trains nothing and needs no data.
DRAWN := $(filter published,$(PROFILE))
EVIDENCE := $(if $(DRAWN),$(wildcard data/evidence/*))
SWEPT := $(if $(DRAWN),,book/_build/.swept-$(PROFILE))
FOLLOWS := book/_build/follows
USED := book/_build/.profile-$(PROFILE)

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PROFILE=laptop|smoke for book and sweep, PROFILE=published for a book that trains nothing; JOBS=2 chapters at a time; DASK=tcp://host:8786 on a cluster."
	@echo "  Times: 2 CPU cores."

##@ Read and rerun
book: $(HTML) ## Train what is missing, execute every chapter, build the HTML (unchanged 0 s)
	@echo "The book is in $(HTML)"

smoke: ## The whole pipeline at toy size, no download
	$(MAKE) book PROFILE=smoke

sweep: $(SWEPT) ## Train the runs that are missing

data: $(DATA)/raw/.fashion-mnist ## Bring Fashion-MNIST here and check its bytes (30 MB)

own: $(READY) ## A chapter on your files: NOTEBOOK=61_your_own PARAMS=mine.yml (1 min; 00_quickstart 2 min)
	@$(PYTHON) book/tools/own.py $(NOTEBOOK) $(PARAMS)

pdf: $(HTML) ## The whole book as one PDF, book/_build/pdf/book.pdf; needs Chromium (2 min, 16 MB)
	@$(PYTHON) book/tools/pdf.py

##@ Work
lab: $(READY) ## Open JupyterLab; saving a notebook saves its text pair too
	$(BIN)/jupyter lab --ServerApp.root_dir=$(CURDIR) $(if $(filter 0,$(shell id -u)),--allow-root)

sync: $(READY) ## Write notebooks/*.ipynb anew from notebooks/text/*.md
	@for text in notebooks/text/*.md; do \
	  $(BIN)/jupytext --quiet --to ipynb --update --output notebooks/$$(basename $$text .md).ipynb $$text; done

findings: $(HTML) ## Publish a run, PROFILE=edition: records, tables, numbers in data/, README.md, book/speed.md
	$(PYTHON) book/tools/collect.py --publish --profile $(PROFILE)

lock: ## Resolve requirements.lock for pyproject.toml (network); UPGRADE=1 takes the newest versions
	python3 -m venv book/_build/lock && book/_build/lock/bin/pip install -q uv
	book/_build/lock/bin/uv pip compile --universal --python-version 3.11 --extra book --extra test --extra dask \
	  --extra s3 --extra pretrained --no-annotate --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) pyproject.toml -o requirements.lock

##@ Check
test: lint unit notebooks-test ## Lint, unit, property and fault tests, then every chapter at the smoke profile (16 min)

lint: $(READY) ## Style of the code and of the notebooks (2 s)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: $(READY) | lint ## Tests of the package, but for the slow ones (9 min)
	$(PYTHON) -m pytest -n $(JOBS) --dist loadfile -m "not slow"

slow: $(READY) ## What is slow by nature: processes killed, chapters with the names of every profile (7 min)
	$(PYTHON) -m pytest -n $(JOBS) --dist loadfile -m slow

test-all: ## make test, then make slow, as CI does (23 min)
	$(MAKE) test
	$(MAKE) slow

# One after the other: nbval runs each executed chapter again and compares its tables.
notebooks-test: $(READY) | unit ## Execute every chapter at the smoke profile, then compare with nbval (7 min)
	$(PYTHON) book/tools/check_notebooks.py

# Does not build the book, so that a folder of pages from elsewhere can be visited too: WAMLIB_HTML=FOLDER.
browser: $(READY) ## Visit every page of the built book in Chromium; skipped where either is missing (2 min)
	$(PYTHON) -m pytest -rfEsP tests/browser/test_built_book.py

audit: ## Look the locked packages up among known vulnerabilities (network)
	@python3 -m venv book/_build/audit && book/_build/audit/bin/pip install -q pip-audit || { \
	  echo "cannot audit the locked packages: pip-audit: got no installation (pip's message is above), wanted one in" \
	    "book/_build/audit. Check the network and run the command again." >&2; exit 2; }
	@python3 book/tools/audit.py book/_build/audit/bin/pip-audit requirements.lock

fuzz: $(READY) ## Spoilt checkpoints and records against every reader, tens of thousands of them (10 min)
	$(PYTHON) tests/fuzz/long.py --seconds 600

fidelity: book/_build/.fidelity ## Compare every merge with timm, torch, mergekit and peft; writes benchmarks/results/ (1 min)
	$(PYTHON) benchmarks/fidelity.py

bench: $(READY) data book/_build/.fidelity ## Speed, side by side with peers; writes benchmarks/results/
	$(PYTHON) benchmarks/merging.py
	$(PYTHON) benchmarks/alignment.py
	$(PYTHON) benchmarks/training.py --compile
	$(PYTHON) benchmarks/stacking.py
	$(PYTHON) benchmarks/scheduling.py
	$(PYTHON) benchmarks/linear.py
	$(PYTHON) benchmarks/predicting.py
	$(PYTHON) benchmarks/perspective.py
	$(PYTHON) benchmarks/perspective.py two
	$(PYTHON) benchmarks/perspective.py three
	$(PYTHON) benchmarks/book.py
	$(PYTHON) benchmarks/reading.py

##@ Set up
setup: $(READY) ## Make .venv, or check the active environment (3 min, 6 GB)

clean: ## Remove what the book was built from, not the trained members
	rm -rf book/_build book/notebooks book/runs.md book/generated

.venv/.ready: requirements.lock pyproject.toml book/tools/setup.sh
	@bash book/tools/setup.sh venv
	@touch $@

book/_build/.ready-active: requirements.lock pyproject.toml
	@bash book/tools/setup.sh active $(PYTHON)
	@mkdir -p $(@D) && touch $@

# The other tools' own dependencies are many, so only those who compare pay for them.
book/_build/.fidelity: pyproject.toml | $(READY)
	@echo "installing mergekit, peft and timm"
	@$(PYTHON) -m pip install -q -c requirements.lock -e ".[fidelity]"
	@mkdir -p $(@D) && touch $@

$(DATA)/raw/.fashion-mnist: | $(READY)
	@$(BIN)/wamlib fetch fashion-mnist
	@touch $@

# A digest for each chapter of what it has to be executed for; the files change only with their content.
$(FOLLOWS)/.$(PROFILE): $(PACKAGE) $(PARAMS) $(EVIDENCE) $(wildcard notebooks/*.ipynb) book/tools/follows.py | $(READY)
	@$(PYTHON) book/tools/follows.py $(PROFILE)
	@touch $@

$(FOLLOWS)/%-$(PROFILE): $(FOLLOWS)/.$(PROFILE)
	@:

book/_build/.swept-$(PROFILE): $(FOLLOWS)/sweep-$(PROFILE) | $(READY) $(if $(filter smoke,$(PROFILE)),,$(DATA)/raw/.fashion-mnist)
	@echo "Members:"
	@$(BIN)/wamlib sweep $(if $(PARAMS),--params $(PARAMS)) $(ON)
	@touch $@

# Executed chapters of another profile are out of date, whatever their time stamps say.
$(USED):
	@mkdir -p $(@D) && rm -f book/_build/.profile-* $(EXECUTED) && touch $@

# Jupyter Book's own cache does not see a change in wamlib.
# Runs that were trained since change nothing about a chapter that asked for others.
$(EXECUTED): book/notebooks/%.ipynb: $(FOLLOWS)/%-$(PROFILE) $(USED) | $(SWEPT) $(READY)
	@OMP_NUM_THREADS=1 $(PYTHON) book/tools/execute.py notebooks/$*.ipynb $@ $(PARAMS) $(ON)

$(HTML): $(EXECUTED) $(PAGES) $(PACKAGE) | $(READY)
	@$(PYTHON) book/tools/collect.py --profile $(PROFILE)
	@$(BIN)/jupyter-book build book -W --keep-going -q
	@$(PYTHON) book/tools/check_html.py
	@touch $@
