# Everything below happens in $(VENV) and $(BUILD): nothing is installed outside this folder.
#   make PYTHON=python3.12     another interpreter (after `make clean`)
#   make JOBS=1                fewer compilers at once
#   make mnist ARGS="--epochs 3 --device cpu"
#   make build CMAKE_FLAGS=-DOWL_WERROR=ON     CMake options, used when $(BUILD) is first configured

PYTHON ?= python3
VENV   ?= .venv
BUILD  ?= build
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
ARGS   ?=
CMAKE_FLAGS ?=

PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check
CMAKE  := $(VENV)/bin/cmake
VERSION := $(shell sed -n 's/^project.owl VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
# Two builds in one folder wait for each other.
LOCK   := $(shell command -v flock >/dev/null 2>&1 && echo flock $(BUILD)/.lock)
say     = @printf '==> %s\n'

.DEFAULT_GOAL := help
.PHONY: help build mnist test test-cpp test-python soak bench sdist wheel docs clean distclean

help:  ## this list
	@echo "owl: make targets"
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

build: $(BUILD)/build.ninja  ## virtual environment, dependencies, module (ready to import from .venv) and C++ programs (in build/)
	$(say) "building owl ($(JOBS) jobs)"
	@$(LOCK) $(CMAKE) --build $(BUILD) --parallel $(JOBS)

mnist: build  ## build, then train the MLP on MNIST (ARGS="--help" shows its options)
	$(say) "training: apps/mnist/mnist_mlp.py $(ARGS)"
	@$(PY) apps/mnist/mnist_mlp.py $(ARGS)

test: test-cpp test-python  ## build, then all tests, C++ and Python

test-cpp: build  ## build, then the C++ tests (where GoogleTest is installed)
	@test -e $(BUILD)/owl_tests || $(CMAKE) $(BUILD) >/dev/null
	@if $(CMAKE) --build $(BUILD) --target help | grep -q '^owl_tests:'; then \
	  echo "==> building the C++ tests"; \
	  $(LOCK) $(CMAKE) --build $(BUILD) --target owl_tests --parallel $(JOBS) && \
	  echo "==> C++ tests" && $(BUILD)/owl_tests --gtest_brief=1; \
	else \
	  echo "==> C++ tests SKIPPED: GoogleTest is not installed (Debian and Ubuntu: apt install libgtest-dev)"; \
	fi

test-python: build  ## build, then the Python tests (ARGS="-k relu" chooses)
	$(say) "Python tests"
	@BUILD="$(abspath $(BUILD))" $(PY) -m pytest tests/python $(ARGS)

soak: build  ## build, then the nightly run: 10,000 random programs, the hard cases in full (ARGS="--seed 1" ...)
	$(say) "random programs"
	@$(PY) tests/python/soak.py $(ARGS)
	$(say) "hard cases"
	@OWL_SOAK=50 $(PY) -m pytest -q -s tests/python/test_hard_*.py

bench: build  ## build, then the benchmarks (ARGS are handed on)
	$(say) "benchmarks"
	@BUILD="$(abspath $(BUILD))" $(PY) benchmarks/run.py $(ARGS)

sdist: $(VENV)/.release  ## the source distribution, in dist/
	$(say) "packing the sources"
	@$(PY) -m build --sdist --outdir dist .

# The way of a release: the wheel is built from the source distribution, in an isolated environment, then checked and
# given the libraries it needs, so that it runs wherever its tag says.
wheel: sdist  ## a wheel in dist/, built from the source distribution, repaired to manylinux
	$(say) "building a wheel in an isolated environment"
	@rm -rf $(BUILD)-wheel && mkdir -p $(BUILD)-wheel
	@$(PIP) wheel --quiet --no-deps --wheel-dir $(BUILD)-wheel dist/owl_engine-$(VERSION).tar.gz
	$(say) "auditwheel"
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m auditwheel repair --wheel-dir dist $(BUILD)-wheel/*.whl
	@rm -rf $(BUILD)-wheel
	@ls -l dist/owl_engine-$(VERSION)*

docs: build  ## the documentation as a site in build/docs (a warning is an error)
	$(say) "building the site: $(BUILD)/docs/index.html"
	@$(PY) third_party/requirements.py docs > $(VENV)/requirements-docs.txt
	@$(PIP) install --quiet -r $(VENV)/requirements-docs.txt
	@$(PY) -m mkdocs build --quiet --strict --site-dir "$(CURDIR)/$(BUILD)/docs"

clean:  ## remove what the build made (keeps .venv)
	rm -rf $(BUILD) build-* dist owl/lib owl/_owl*.so .pytest_cache .hypothesis

distclean: clean  ## remove the virtual environment too
	rm -rf $(VENV)

# The environment finds the package in this folder through a .pth file, as an editable install does: what is edited
# under owl/ counts at once, and the module is rebuilt in place.
$(VENV)/.dependencies: pyproject.toml third_party/requirements.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "owl needs Python 3.10 or newer; $(PYTHON) is" `$(PYTHON) --version`; exit 1; }
	@if ! test -x $(PY) || ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  echo "==> creating $(VENV) (`$(PYTHON) --version`)"; \
	  $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
	  { $(PYTHON) -m venv --without-pip --clear $(VENV) && $(PYTHON) -m pip --python $(PY) install -q pip; } || \
	  { echo "$(PYTHON) cannot make virtual environments (Debian and Ubuntu: apt install python3-venv)"; exit 1; }; \
	fi
	$(say) "installing dependencies from pyproject.toml into $(VENV) (a minute or so, the first time)"
	@$(PY) third_party/requirements.py apps test dev > $(VENV)/requirements.txt
	@$(PIP) install --quiet -r $(VENV)/requirements.txt
	@$(PY) -c 'import pathlib, sysconfig; \
	  pathlib.Path(sysconfig.get_path("purelib"), "owl-checkout.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
	@touch $@

$(VENV)/.release: $(VENV)/.dependencies
	$(say) "installing what makes a release"
	@$(PY) third_party/requirements.py release > $(VENV)/requirements-release.txt
	@$(PIP) install --quiet -r $(VENV)/requirements-release.txt
	@touch $@

$(BUILD)/build.ninja: $(VENV)/.dependencies
	$(say) "configuring $(BUILD)"
	@mkdir -p $(BUILD)
	@$(LOCK) $(CMAKE) -S . -B $(BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM="$(CURDIR)/$(VENV)/bin/ninja" \
	  -DPython_EXECUTABLE="$(CURDIR)/$(PY)" -DOWL_INPLACE=ON $(CMAKE_FLAGS)
	@touch $@
