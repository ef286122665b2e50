# Coppice: `make` lists the targets.
VENV := .venv
PY := $(VENV)/bin/python
UV_VERSION := 0.13.9
RSATOOLBOX_VERSION := 0.3.2
# No telemetry from any library; the stages run from this folder with this environment's programs.
export DO_NOT_TRACK := true
export RAY_USAGE_STATS_ENABLED := 0
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export COPPICE_VERBOSE := $(V)

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready  ## make .venv and install the exact versions of requirements.lock

$(VENV)/.ready: requirements.lock
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(VENV)/bin/uv pip sync --quiet --compile-bytecode --python $(PY) requirements.lock
	touch $@

repro: setup  ## run the whole chain: data, training, trees, report (ends with artifacts/report/index.html)
	@$(PY) -m stages.repro $(if $(PRESET),--preset $(PRESET)) $(if $(ROOT),--root "$(ROOT)")

submit: setup  ## send the study to a Ray cluster, show its log, bring the results back: make submit TO=http://head:8265
	@$(PY) -m stages.submit $(if $(TO),--to "$(TO)") $(if $(PRESET),--preset $(PRESET)) $(if $(ONLY),--only $(ONLY))

fetch: setup  ## bring back what a submitted study has finished so far: make fetch [ONLY="report branched"]
	@$(PY) -m stages.submit --fetch $(if $(ONLY),--only $(ONLY))

check-data: setup  ## what lies in the data sets: counts, ranges, drawn labels; nothing is trained
	@$(PY) -m stages.check_data $(if $(PRESET),--preset $(PRESET)) $(if $(ROOT),--root "$(ROOT)")

manifest: setup  ## a manifest of a tree in a known layout: make manifest [FROM=coco] ROOT=data/coco OUT=data/coco.csv
	@$(PY) -m stages.manifest $(FROM) "$(ROOT)" --out "$(OUT)"

plan: setup  ## what a study would take: jobs, parameters, FLOPs, time and disk; nothing is trained
	@$(PY) -m stages.plan $(if $(PRESET),--preset $(PRESET)) $(if $(ROOT),--root "$(ROOT)")

# A thread a process: there is a process for each core already.
test: setup  ## run the tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n logical --maxprocesses 8 --dist worksteal -m "not alone and not faults and not pages"
	$(PY) -m pytest -m alone

pages: setup  ## the report's page in headless Chromium: sliders, tables, links, keyboard, contrast (5 minutes)
	$(PY) -m pytest -n logical --maxprocesses 8 --dist worksteal -m pages

faults: setup  ## what clusters do, done to real Ray nodes; a study sent to a cluster and back (root, Linux; 10 minutes)
	$(PY) -m pytest -m faults

soak: setup  ## half an hour of random kills on a cluster of this machine (root, Linux): make soak [MINUTES=30]
	$(PY) -m tests.soak --minutes $(or $(MINUTES),30)

fuzz: setup  ## damaged settings, lists, pictures and bundles, 10,000 of each: only the typed errors may come
	$(PY) -m pytest -n logical --maxprocesses 8 --dist worksteal tests/fuzz --hypothesis-profile fuzz

check: setup  ## ruff and pyright
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

bench: setup  ## all speed claims beside what one would use instead, into benchmarks/RESULTS.md: make bench [ONLY="taps moe"]
	$(VENV)/bin/uv pip install --quiet --python $(PY) --constraints requirements.lock rsatoolbox==$(RSATOOLBOX_VERSION)
	@$(PY) -m benchmarks $(ONLY)

bug: setup  ## versions, settings without keys and the last logs in one .zip, to send with a question
	@$(PY) -m stages.bug

ui: setup  ## the MLflow page on http://127.0.0.1:5000
	$(VENV)/bin/mlflow server --backend-store-uri sqlite:///$(CURDIR)/mlflow.db --host 127.0.0.1 --port 5000

lock:  ## write requirements.lock anew from pyproject.toml
	$(VENV)/bin/uv pip compile pyproject.toml --extra lora --extra dev --generate-hashes --no-emit-index-url --no-header --quiet \
	  --python-version 3.11 -o requirements.lock

.PHONY: help setup repro submit fetch check-data manifest plan test pages faults soak fuzz check bench bug ui lock
