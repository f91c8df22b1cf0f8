# Headrace needs Python 3.11 or newer with venv and headers, and a C++20 compiler; all else goes into .venv.
# PIP_ARGS goes to pip as it is, for example an extra index that has CPU builds of PyTorch.
PYTHON ?= python3
PROMPT ?= What is a headrace, and why would a water mill need one? Answer in two sentences.

VENV := .venv
BIN := $(VENV)/bin
# Named by variables, so that the tools that build the kernels have the versions of constraints.txt as well.
INSTALL := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
  $(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_ARGS)
# pip is quiet for minutes. The lines end with the shell that began them, also where Ctrl-C ends that.
SHOW_TIME := { s=0; while sleep 5 >/dev/null 2>&1 && kill -0 $$$$ 2>/dev/null; do s=$$((s + 5)); [ $$((s % 20)) -ne 0 ] || \
  echo "  $$s s, source files compiled: $$(find build -name '*.o' -mmin -$$((s / 60 + 1)) 2>/dev/null | wc -l) …"; done; } & \
  clock=$$!; trap 'kill $$clock 2>/dev/null' EXIT
KERNELS := CMakeLists.txt $(wildcard src/headrace/backends/native/cpp/*)
BUILT := $(BIN)/python -c 'import headrace.backends.native._kernels' 2>/dev/null || { \
  echo "The kernels could not be built; install a C++20 compiler and Python's headers (g++, python3-dev) and run make again." >&2; exit 1; }

.PHONY: run test lint check prove sanitize arm bench clean

run: export HEADRACE_PROMPT = $(value PROMPT)
run: $(VENV)/.stamp-run
	@$(BIN)/headrace run -- "$$HEADRACE_PROMPT"

test: lint
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: $(VENV)/.stamp-test
	@$(BIN)/ruff check src tests benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

check: $(VENV)/.stamp-test
	@$(BIN)/ruff format --check src tests benchmarks
	@$(MAKE) --no-print-directory test

prove: $(VENV)/.stamp-test
	@$(BIN)/python tests/prove.py $(ARGS)

# Needs g++, whose sanitizer runtime has to be loaded before Python; Python's own memory is not searched for leaks.
SANITIZED := build/sanitize
sanitize: $(VENV)/.stamp-test
	@$(INSTALL) cmake ninja nanobind
	@export PATH="$(abspath $(BIN)):$$PATH" CXX=g++; \
	  cmake -S . -B $(SANITIZED) -G Ninja -DHEADRACE_SANITIZE=ON -DPython_EXECUTABLE="$(abspath $(BIN))/python" >/dev/null && \
	  cmake --build $(SANITIZED)
	@rm -rf $(SANITIZED)/src && cp -r src $(SANITIZED)/ && cp $(SANITIZED)/_kernels*.so $(SANITIZED)/src/headrace/backends/native/
	@# The installed package steps aside for the one in build/sanitize when its own build folder is named so.
	@SKBUILD_EDITABLE_SKIP="$$(printf '%s:' "$$PWD"/build/cp*)" \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libstdc++.so)" ASAN_OPTIONS=detect_leaks=0 \
	  UBSAN_OPTIONS=print_stacktrace=1 OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -o pythonpath="$(SANITIZED)/src tests" tests/backends/native $(ARGS)

arm: | $(BIN)/python
	@$(INSTALL) cmake ninja
	@PATH="$(abspath $(BIN)):$$PATH" sh tests/arm.sh $(ARGS)

# The figures that are published stand in benchmarks/results; a run of one's own does not replace them unasked.
OUTPUT ?= build/offline.json
bench: $(VENV)/.stamp-run
	@mkdir -p "$(dir $(OUTPUT))"
	@$(BIN)/headrace bench --output "$(OUTPUT)" $(ARGS)
	@echo "Kept in $(OUTPUT)."

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Headrace needs Python 3.11 or newer; give one with PYTHON=python3.11." if sys.version_info < (3, 11) else 0)'
	@echo "Creating the environment $(VENV) …"
	@$(PYTHON) -m venv $(VENV) >&2 || { rm -rf $(VENV); \
	  echo "The environment $(VENV) could not be made; install the package python3-venv and run make again." >&2; exit 1; }

$(VENV)/.stamp-run: pyproject.toml constraints.txt $(KERNELS) | $(BIN)/python
	@echo "Installing Headrace into $(VENV) and building its kernels, about 20 source files: one to four minutes …"
	@$(SHOW_TIME); $(INSTALL) --editable .
	@$(BUILT)
	@touch $@

# Only what the extras name: to install the project with its extras would build the kernels a second time.
EXTRAS := import tomllib; \
  extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
  print(*(wanted for extra in ("torch", "reason", "gym", "ground", "privacy", "test", "dev") for wanted in extras[extra]), sep="\n")

# PyTorch's size is its index's choice: 200 MB for the CPU build, several GB for the CUDA build.
$(VENV)/.stamp-test: $(VENV)/.stamp-run
	@echo "Installing PyTorch and the test tools into $(VENV): several minutes …"
	@$(BIN)/python -c '$(EXTRAS)' >$(VENV)/extras.txt
	@$(INSTALL) --requirement $(VENV)/extras.txt
	@touch $@
