# All targets work in $(VENV) and $(BUILD): nothing is installed outside this folder.
#   make PYTHON=python3.12     another interpreter (after `make clean`)
#   make JOBS=1                fewer compilers in parallel
#   make mnist ARGS="--epochs 3 --device cpu"
#   make build CMAKE_FLAGS=-DOWL_WERROR=ON     CMake options, used when $(BUILD) is first configured
#   make build OWL_CUDA=on     with the CUDA backend; installs its headers and libraries too (2 GB). auto, the
#                              default: if the headers are found. off: never
#   make build OWL_WHEELS=wheels     without a network: packages that $(PYTHON) lacks come from that folder, which
#                                    `make wheels TO=wheels` has filled on another machine

PYTHON ?= python3
VENV   ?= .venv
BUILD  ?= build
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
ARGS   ?=
CMAKE_FLAGS ?=
OWL_CUDA ?= auto
OWL_WHEELS ?=
TO     ?= wheels
FOR    ?=
ONLY   ?=
ARCH   ?= sm_90
INTO   ?= kernels
# The tests that run on the stand-in for CUDA's libraries.
STANDIN_TESTS ?= tests/python/test_cuda.py tests/python/test_cuda_exchange.py

PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check
CMAKE  := $(VENV)/bin/cmake
VERSION := $(shell sed -n 's/^project.owl VERSION \([0-9.]*\).*/\1/p' CMakeLists.txt)
# Serialises builds in one folder.
LOCK   := $(shell command -v flock >/dev/null 2>&1 && echo flock $(BUILD)/.lock)
say     = @printf '==> %s\n'
ifneq ($(OWL_WHEELS),)
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(abspath $(OWL_WHEELS))
endif
# A stamp for the value of OWL_CUDA: newer than a build that was configured with another value.
CUDA_IS := $(BUILD)/.cuda-$(OWL_CUDA)

.DEFAULT_GOAL := help
.PHONY: help build module mnist test test-cpp test-python test-standin test-gpu kernels soak bench bench-gpu sdist wheel wheels docs \
  clean distclean

help:  ## this list
	@echo "owl: make targets"
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

build: $(BUILD)/build.ninja  ## virtual environment, dependencies, module (ready to import from .venv) and C++ programs (in build/)
	$(say) "building owl ($(JOBS) jobs)"
	@$(LOCK) $(CMAKE) --build $(BUILD) --parallel $(JOBS)

module: $(BUILD)/build.ninja  ## only the Python module
	$(say) "building the Python module ($(JOBS) jobs)"
	@$(LOCK) $(CMAKE) --build $(BUILD) --target owl_module --parallel $(JOBS)

mnist: module  ## build the module, then train the MLP on MNIST (ARGS="--help" shows its options)
	$(say) "training: apps/mnist/mnist_mlp.py $(ARGS)"
	@$(PY) apps/mnist/mnist_mlp.py $(ARGS)

test: test-cpp test-python  ## build, then all tests, C++ and Python

test-cpp: build  ## build, then the C++ tests (where GoogleTest is installed)
	@test -e $(BUILD)/owl_tests || $(CMAKE) $(BUILD) >/dev/null
	@if $(CMAKE) --build $(BUILD) --target help | grep -q '^owl_tests:'; then \
	  echo "==> building the C++ tests"; \
	  $(LOCK) $(CMAKE) --build $(BUILD) --target owl_tests --parallel $(JOBS) && \
	  echo "==> C++ tests" && $(BUILD)/owl_tests --gtest_brief=1 $(GTEST); \
	else \
	  echo "==> C++ tests SKIPPED: GoogleTest is not installed (Debian and Ubuntu: apt install libgtest-dev)"; \
	fi

test-python: build  ## build, then the Python tests (ARGS="-k relu" chooses)
	$(say) "Python tests"
	@BUILD="$(abspath $(BUILD))" $(PY) -m pytest tests/python $(ARGS)

test-standin:  ## build with the CUDA backend, then its tests on a stand-in for CUDA's libraries: no GPU is needed
	@$(MAKE) --no-print-directory build OWL_CUDA=on
	@$(LOCK) $(CMAKE) --build $(BUILD) --target owl_standin --parallel $(JOBS)
	$(say) "Python tests on the stand-in"
	@OWL_TEST_DEVICE=standin BUILD="$(abspath $(BUILD))" $(PY) -m pytest $(STANDIN_TESTS) $(ARGS)

# With STANDIN_TESTS=tests/python those of all tests. NVRTC must have the version of the GPU's machine.
kernels:  ## compile the tests' kernels for a GPU on another machine (ARCH=sm_90, into INTO=kernels)
	@$(MAKE) --no-print-directory build OWL_CUDA=on
	@$(LOCK) $(CMAKE) --build $(BUILD) --target owl_standin owl_cuda_check --parallel $(JOBS)
	$(say) "kernels for $(ARCH)"
	@OWL_TEST_DEVICE=standin BUILD="$(abspath $(BUILD))" $(BUILD)/owl_cuda_check --fill "$(INTO)" $(ARCH) \
	  `$(PY) -c 'import owl._cuda; print(*owl._cuda.library_folders())'` -- $(PY) -m pytest -q $(STANDIN_TESTS) $(ARGS)

test-gpu:  ## build with the CUDA backend, then all tests on the GPU, and its kernels under compute-sanitizer
	@OWL_TEST_DEVICE=gpu $(MAKE) --no-print-directory test-python OWL_CUDA=on
	@if sanitizer=`PATH="$$PATH:/usr/local/cuda/bin" command -v compute-sanitizer`; then \
	  echo "==> $$sanitizer: tests/python/test_cuda.py"; \
	  OWL_TEST_DEVICE=gpu BUILD="$(abspath $(BUILD))" "$$sanitizer" --error-exitcode 99 \
	    $(PY) -m pytest tests/python/test_cuda.py -k "not forked and not leaving and not memory"; \
	else \
	  echo "==> kernels under compute-sanitizer SKIPPED: it is neither on PATH nor in /usr/local/cuda/bin"; \
	fi

soak: build  ## build, then the nightly run: 10,000 random programs, the hard cases in full (ARGS="--seed 1" ...)
	$(say) "random programs"
	@$(PY) tests/python/soak.py $(ARGS)
	$(say) "hard cases"
	@OWL_SOAK=50 $(PY) -m pytest -q -s tests/python/test_hard_*.py

bench: build  ## build, then the benchmarks (with the options in ARGS)
	$(say) "benchmarks"
	@BUILD="$(abspath $(BUILD))" $(PY) benchmarks/run.py $(ARGS)

bench-gpu:  ## build with the CUDA backend, then the benchmarks on a GPU, which write benchmarks/gpu.md
	@$(MAKE) --no-print-directory build OWL_CUDA=on
	$(say) "benchmarks on the GPU"
	@$(PY) benchmarks/gpu/run.py --peer-python "$(PYTHON)" $(ARGS)

sdist: $(VENV)/.release  ## the source distribution, in dist/
	$(say) "packing the sources"
	@$(PY) -m build --sdist $(if $(OWL_WHEELS),--no-isolation) --outdir dist .

# A release: builds the wheel from the source distribution, in an isolated environment; auditwheel then checks it and
# adds the libraries it needs, so that it runs on every system of its tag.
wheel: sdist  ## a wheel in dist/, built from the source distribution, repaired to manylinux
	$(say) "building a wheel in an isolated environment"
	@rm -rf $(BUILD)-wheel && mkdir -p $(BUILD)-wheel
	@OWL_CUDA=$(OWL_CUDA) $(PIP) wheel --quiet --no-deps $(if $(OWL_WHEELS),--no-build-isolation) \
	  --wheel-dir $(BUILD)-wheel dist/owl_engine-$(VERSION).tar.gz
	$(say) "auditwheel"
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m auditwheel repair --wheel-dir dist $(BUILD)-wheel/*.whl
	@rm -rf $(BUILD)-wheel
	@ls -l dist/owl_engine-$(VERSION)*

# Further variables: FOR=3.12, wheels for that Python; ONLY="mypy librt", only these; OWL_CUDA=on, CUDA's packages too.
wheels: $(VENV)/.dependencies  ## fill the folder TO=wheels, for builds without a network (OWL_WHEELS)
	$(say) "downloading into $(TO)"
	@$(PY) third_party/requirements.py apps test dev $(if $(filter on,$(OWL_CUDA)),cuda) > $(VENV)/requirements-wheels.txt
	@$(PIP) download --quiet --only-binary=:all: --dest "$(TO)" $(if $(FOR),--python-version $(FOR)) \
	  $(if $(ONLY),--no-deps $(ONLY),-r $(VENV)/requirements-wheels.txt)
	@du -sh "$(TO)"

docs: build  ## the documentation as a site in build/docs (a warning is an error)
	$(say) "building the site: $(BUILD)/docs/index.html"
	@$(PY) third_party/requirements.py docs > $(VENV)/requirements-docs.txt
	@$(PIP) install --quiet -r $(VENV)/requirements-docs.txt
	@$(PY) -m mkdocs build --quiet --strict --site-dir "$(abspath $(BUILD))/docs"

clean:  ## remove the build's files (keeps .venv)
	rm -rf $(BUILD) build-* dist owl/lib owl/_owl*.so .pytest_cache .hypothesis

distclean: clean  ## remove the virtual environment too
	rm -rf $(VENV)

# The environment finds the package in this folder through a .pth file, like an editable install: edits under owl/ take
# effect at once, and the module is rebuilt in place. With OWL_WHEELS it finds the packages of $(PYTHON) in the same
# way, because --system-site-packages does not work if that is in a virtual environment itself.
$(VENV)/.dependencies: pyproject.toml third_party/requirements.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "owl needs Python 3.10 or newer; $(PYTHON) is" `$(PYTHON) --version`; exit 1; }
	@if ! test -x $(PY) || ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  echo "==> creating $(VENV) (`$(PYTHON) --version`)"; \
	  if test -n "$(OWL_WHEELS)"; then \
	    $(PYTHON) -m venv --without-pip --clear $(VENV) && \
	    $(PYTHON) -c 'import site; print(*site.getsitepackages(), sep="\n")' \
	      > "`$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))'`/python-at-hand.pth" && \
	    $(PY) -m pip --version >/dev/null; \
	  else \
	    $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
	    { $(PYTHON) -m venv --without-pip --clear $(VENV) && $(PYTHON) -m pip --python $(PY) install -q pip; }; \
	  fi || \
	  { echo "$(PYTHON) cannot make virtual environments (Debian and Ubuntu: apt install python3-venv)"; exit 1; }; \
	fi
	$(say) "installing dependencies from pyproject.toml into $(VENV) (a minute or so, the first time)"
	@$(PY) third_party/requirements.py apps test dev > $(VENV)/requirements.txt
	@$(PIP) install --quiet -r $(VENV)/requirements.txt
	@$(if $(OWL_WHEELS),for tool in cmake ninja; do \
	  test -x $(VENV)/bin/$$tool || ln -sf "`PATH="$(dir $(PYTHON)):$$PATH" command -v $$tool`" $(VENV)/bin/$$tool; done)
	@$(PY) -c 'import pathlib, sysconfig; \
	  pathlib.Path(sysconfig.get_path("purelib"), "owl-checkout.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
	@touch $@

# Without a network, a toolkit of the machine may replace packages that the folder lacks: CMake decides.
$(VENV)/.cuda: $(VENV)/.dependencies
	$(say) "installing CUDA's headers and libraries into $(VENV) (2 GB)"
	@$(PY) third_party/requirements.py cuda > $(VENV)/requirements-cuda.txt
	@$(PIP) install --quiet -r $(VENV)/requirements-cuda.txt || \
	  { test -n "$(OWL_WHEELS)" && echo "==> not all of them are in $(OWL_WHEELS): using the machine's toolkit"; }
	@touch $@

$(VENV)/.release: $(VENV)/.dependencies
	$(say) "installing what makes a release"
	@$(PY) third_party/requirements.py release > $(VENV)/requirements-release.txt
	@$(PIP) install --quiet -r $(VENV)/requirements-release.txt
	@touch $@

$(CUDA_IS):
	@mkdir -p $(BUILD) && rm -f $(BUILD)/.cuda-* && touch $@

$(BUILD)/build.ninja: $(VENV)/.dependencies $(if $(filter on,$(OWL_CUDA)),$(VENV)/.cuda) $(CUDA_IS)
	$(say) "configuring $(BUILD)"
	@mkdir -p $(BUILD)
	@$(LOCK) $(CMAKE) -S . -B $(BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM="$(CURDIR)/$(VENV)/bin/ninja" \
	  -DPython_EXECUTABLE="$(CURDIR)/$(PY)" -DOWL_INPLACE=ON -DOWL_CUDA=$(OWL_CUDA) $(CMAKE_FLAGS)
	@touch $@
