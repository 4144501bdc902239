# `make` lists the targets. A stamp file stands for each step done, so that repeats are quick.

PACKAGES = python3-venv qemu-system-x86 nftables dnsmasq-base busybox-static iproute2 \
           util-linux procps tmux sudo systemd faketime strace bash-completion zsh fish mandoc kmod \
           iptables dbus-daemon dbus-bin python3-dbus python3-gi \
           libbluetooth3 libcurl3-gnutls libmm-glib0 libndp0 libnewt0.52 libnm0 libteamdctl0 \
           isc-dhcp-client passt slirp4netns uidmap git

# What `make bench` compares with.
PEERS = uml-utilities bridge-utils net-tools libvirt-daemon libvirt-daemon-driver-qemu \
        libvirt-clients

# The tests that a system other than the usual one also has to pass.
QUICK = tests/unit tests/netns tests/guest tests/judge

# Workers of pytest: tests wait more than they compute.
WORKERS = $(shell expr $$(nproc) + 1)
SIDE_BY_SIDE = --dist loadscope \
               --tx '$(WORKERS)*popen//python=$(CURDIR)/tests/lab/boxed $(CURDIR)/$(BIN)/python3'

VENV = .venv
CLEAN = build/clean
BIN = $(VENV)/bin
PIP = $(BIN)/pip --disable-pip-version-check -q
# Folders too: theirs is the time stamp that changes when a file is removed. Of git, what changes with
# a commit or a tag: the version comes from them.
SOURCES = pyproject.toml README.md LICENSE CHANGELOG.md $(wildcard scripts/*) \
          tools/version.py tools/build_hook.py \
          $(wildcard .git/logs/HEAD .git/packed-refs .git/refs/tags) \
          $(shell find qemu_netwrap completions docs/man -not -path '*/__pycache__*')

# Where `make install` puts the program, below DESTDIR if that is set, and by which Python.
PREFIX = /usr/local
DESTDIR =
PYTHON = /usr/bin/python3
INSTALL = $(PYTHON) -IB tools/install.py --prefix '$(PREFIX)' --destdir '$(DESTDIR)'

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help setup demo picture test debian13 soak bench lint generate wheel install uninstall clean \
        packages

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(VENV)/wheel ## install what is missing; make .venv with the built wheel in it

demo: setup ## show what it does, with real guests
	$(BIN)/python tests/lab/demo.py

picture: setup ## draw the session that README shows (root)
	tests/lab/boxed $(BIN)/python3 tests/lab/picture.py

# The nested machines of tests/vfio want both processors: they come first, and alone.
test: setup lint ## lint, then run every test on the built wheel (ARGS='-k name' for some)
ifdef ARGS
	$(BIN)/pytest $(SIDE_BY_SIDE) $(ARGS)
else
	$(BIN)/pytest tests/vfio
	$(BIN)/pytest $(SIDE_BY_SIDE) --ignore=tests/vfio
endif

debian13: ## the demo and the quick tests on a Debian 13 made for it (root, by debootstrap)
	tools/debian13 sh -c 'make demo && CI=true make test ARGS="$(or $(ARGS),$(QUICK))"'

soak: setup ## starts and exits of many VMs for ten minutes (ARGS=tests/crash: every crash point)
	SOAK=1 $(BIN)/pytest $(or $(ARGS),tests/load)

bench: $(VENV)/bench $(CLEAN)/wheel ## against the peers and the budget (ARGS=--write: docs/benchmarks.md)
	PYTHONPATH=tests $(BIN)/python -m bench $(ARGS)

lint: setup ## ruff and mypy
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy

generate: ## write what is made from tables: completions, parts of the man pages (ARGS=--check)
	/usr/bin/python3 tools/generate.py $(ARGS)

wheel: build/wheel ## build dist/*.whl

install: ## install the program below PREFIX (/usr/local), for packagers in DESTDIR
	$(INSTALL) install

uninstall: ## remove what `make install` has put there
	$(INSTALL) uninstall

clean: ## remove all that make has made
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

packages:
	@tools/need $(PACKAGES)

# A Python is all that this needs: pip fetches the build backend into a folder that it removes.
build/pip/bin/pip:
	$(PYTHON) -m venv --clear build/pip

build/wheel: $(SOURCES) | build/pip/bin/pip
	rm -rf dist
	build/pip/bin/pip --disable-pip-version-check -q wheel --no-deps --wheel-dir dist .
	@touch $@

$(BIN)/pip: | packages
	/usr/bin/python3 -m venv --clear $(VENV)

# The packages come first: Python's venv is one of them.
$(VENV)/requirements: pyproject.toml | $(BIN)/pip build/wheel
	$(PIP) install "$$(echo dist/*.whl)[test]"
	@touch $@

$(VENV)/wheel: $(VENV)/requirements build/wheel
	$(PIP) install --force-reinstall --no-deps dist/*.whl
	@touch $@

$(VENV)/bench: $(VENV)/wheel
	@tools/need $(PEERS)
	$(PIP) install "$$(echo dist/*.whl)[bench]"
	@touch $@

# As a user has it: nothing but the wheel and what it needs.
$(CLEAN)/wheel: build/wheel
	/usr/bin/python3 -m venv --clear $(CLEAN)
	$(CLEAN)/bin/pip --disable-pip-version-check -q install dist/*.whl
	@touch $@
