# Everything a person needs to run in this repository; `make help` lists it.
SHELL := bash
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# Created last, so that an interrupted installation is repeated.
INSTALLED := $(VENV)/installed

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

# A separate environment for what pip cannot do: the lowest allowed versions, and requirements with hashes.
UV := .venv-uv
LOWEST := .venv-lowest
# No version of the package datasets, which this test uses, accepts these versions and reads fixed-size binary.
LOWEST_LEFT_OUT := --deselect tests/unit/data/readers/test_image_layouts.py::test_what_is_written_opens_in_the_datasets_package
LOWEST_TESTS := $(addprefix tests/unit/,spec store models data training inference report monitoring)

$(UV)/bin/uv: $(INSTALLED)
	@$(BIN)/python -m venv --clear $(UV)
	@$(UV)/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

$(LOWEST)/installed: $(UV)/bin/uv pyproject.toml
	@$(BIN)/python -m scripts.lowest $(UV)/bin/uv $(LOWEST)
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt
	@scripts/install.sh $(VENV)
	@touch $@

.PHONY: install
install: $(INSTALLED) ## create .venv and install cifarray with everything that its tests need

.PHONY: demo
demo: $(INSTALLED) ## tune and train on real handwritten digits, on this machine, without any download of data
	@$(BIN)/python scripts/demo.py

.PHONY: test
test: $(INSTALLED) ## the test suite without what is marked slow
	@$(BIN)/python -m pytest -m "not slow" $(ARGS)

.PHONY: test-all
test-all: $(INSTALLED) ## the whole test suite, before a release
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: test-lowest
test-lowest: $(LOWEST)/installed ## the quick part of the suite on the lowest Python and packages that pyproject.toml allows
	@$(LOWEST)/bin/python -m pytest -m "not slow" $(or $(TESTS),$(LOWEST_TESTS)) $(LOWEST_LEFT_OUT) $(ARGS)

.PHONY: mutate
mutate: $(INSTALLED) ## change the code in 300 places, one at a time, and count the changes that no unit test notices
	@$(BIN)/python -m scripts.mutate $(ARGS)

.PHONY: test-cluster
test-cluster: $(INSTALLED) ## tests on the throw-away Kubernetes cluster that CIFARRAY_TEST_KUBECONFIG names
	@$(if $(CIFARRAY_TEST_IMAGE_LOADER),scripts/bring_image.sh $(CIFARRAY_TEST_IMAGE_LOADER))
	@$(BIN)/python -m pytest $(or $(TESTS),tests/cluster) $(ARGS)

.PHONY: results
results: $(INSTALLED) ## run the published recipes (SMALL=1: those for two cores; ONLY="lenet25 fast") and write docs/results.md
	@$(BIN)/python -m benchmarks.results $(if $(SMALL),--small) $(if $(STORE),--store $(STORE)) $(if $(ONLY),--only $(ONLY))

.PHONY: image
image: ## build the container image with docker, podman or buildah (BUILDER, BASE_IMAGE, BUILD_ARGS)
	@scripts/image.sh $(IMAGE)

.PHONY: requirements
requirements: $(UV)/bin/uv ## write requirements/, the image's packages with their hashes, from constraints.txt
	@scripts/requirements.sh $(UV)

.PHONY: manifests
manifests: $(INSTALLED) ## render k8s/ with kubectl (IMAGE=NAME:TAG, DIGESTS=1, WITH="monitoring kueue")
	@$(BIN)/python -m scripts.dashboard
	@$(BIN)/python -m scripts.manifests $(if $(IMAGE),--image $(IMAGE)) $(if $(DIGESTS),--digests) $(addprefix --with ,$(WITH))

.PHONY: check
check: lint types contracts ## lint, types and contracts: what CI runs before the tests

.PHONY: lint
lint: $(INSTALLED) ## ruff: style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

.PHONY: format
format: $(INSTALLED) ## ruff: fix style and formatting
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: types
types: $(INSTALLED) ## mypy, strict
	@$(BIN)/mypy

.PHONY: contracts
contracts: $(INSTALLED) ## import-linter: which packages may import which
	@PATH="$(abspath $(BIN)):$$PATH" lint-imports --no-cache

.PHONY: clean
clean: ## remove .venv, builds and caches; keep the store and pulled runs
	@rm -rf $(VENV) $(UV) $(LOWEST) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -path ./store -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
