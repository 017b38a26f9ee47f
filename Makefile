# Every target does its own set-up (.ci/setup); nothing but git, make and python3 has to be there before.
#   make demo  ARGS="--json"      one pod VM from the Kata socket to the container and back (root, asks for sudo);
#                                 also --keep (exec into it), --pods N, --shim go or runtime-rs
#   make demo  PROVIDER=libvirt   the same in a real VM, on a libvirtd of its own (emulated where KVM is not usable)
#   make demo  PROVIDER=aws       the same with the driver of a cloud, or azure or gcp, on a fake one: no account needed
#   make test  SUITES="unit"      lint and every test suite, or the suites named
#   make lint                     ruff, mypy, import contracts, gofmt
#   make cloud PROVIDER=aws       a fake cloud, or azure or gcp, on the loopback until Ctrl-C; prints the settings for it
#   make bench ARGS="--quick"     side-by-side benchmark of the data path, and hand-overs; --handover or --soak alone
#   make chaos ARGS="--full"      kill and cut while pods work, count what they lose (root); --seed N, --report FILE.md
#   make image ARGS="--profile debug"   the pod VM image (root); IMAGE=tiny: kernel and initramfs for tests
#   make clean                    removes all that the other targets made in this checkout
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup cloud demo test lint bench chaos image clean
export PYTHON ?= python3
PROVIDER ?= local
CLOUDS := aws azure gcp
one_of = $(if $(filter $(PROVIDER),$(1)),,$(error PROVIDER=$(PROVIDER): choose one of $(1)))
IMAGE ?= build

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@.ci/setup

demo:
	$(call one_of,local libvirt $(CLOUDS))
	@.ci/as-root --check
	@.ci/setup
ifeq ($(PROVIDER),libvirt)
	@source .ci/env && .venv/bin/python -m podvm.image tiny >/dev/null
endif
	@source .ci/env && .ci/as-root .venv/bin/caa demo --provider $(PROVIDER) --image .cache/image/tiny $(ARGS)

test:
	@.ci/setup --go-on
	@source .ci/env && .venv/bin/python .ci/suites.py $(SUITES)

lint:
	@.ci/setup --go-on
	@source .ci/env && .ci/lint

cloud:
	$(call one_of,$(CLOUDS))
	@.ci/setup
	@source .ci/env && exec .venv/bin/python -m tests.fakes.$(PROVIDER) $(ARGS)

bench: setup
	@source .ci/env && .venv/bin/python -m tests.bench $(ARGS)

chaos:
	@.ci/as-root --check
	@.ci/setup
	@source .ci/env && .ci/as-root .venv/bin/python -m tests.chaos $(ARGS)

image:
	@[ $(IMAGE) = tiny ] || .ci/as-root --check
	@.ci/setup
	@source .ci/env && $(if $(filter tiny,$(IMAGE)),,.ci/as-root) .venv/bin/python -m podvm.image $(IMAGE) $(ARGS)

clean:
	@[ ! -e .cache/image/trixie ] || .ci/as-root rm -rf .cache/image
	@chmod -R u+w .cache 2>/dev/null || true
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
	rm -rf tests/bench/build tests/interop/build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
