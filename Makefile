# Quern.  Two commands matter: `make run` and `make test`; `make help` lists the rest.
BUILD   ?= build
PREFIX  ?= /usr/local
ifeq ($(origin CC),default)
CC       = gcc
endif
ifeq ($(origin CXX),default)
CXX      = $(if $(findstring clang,$(CC)),clang++,g++)
endif
CLANG   ?= clang
# CUDA=1 where a toolkit is found (around the nvcc on PATH, in /usr/local/cuda, or where docker/deps.sh nvcc
# puts one), CUDA=0 builds without.  ARCHS picks the devices code is made for; fewer build faster.
CUDA_HOME ?= $(patsubst %/include/cublasLt.h,%,$(firstword $(wildcard $(addsuffix /include/cublasLt.h, \
  $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v nvcc))) /usr/local/cuda $(CURDIR)/build/nvcc/nvidia/cu13))))
CUDA_HOME := $(CUDA_HOME)
NVCC    ?= $(CUDA_HOME)/bin/nvcc
CUDA    ?= $(if $(CUDA_HOME),1,0)
ARCHS   ?= 80 89 90a 100 120
MODEL   ?= models/demo
ARGS    ?=
TEST_JOBS ?= 1

# V=1 shows the commands.
Q        = $(if $(V),,@echo "  $(@:$(BUILD)/%=%)";)

VERSION := 0.1.0
COMMIT  := $(shell git rev-parse --short=10 HEAD 2>/dev/null || echo unknown)

PKGS    := libmicrohttpd gnutls libcjson libpcre2-8 libutf8proc libxxhash jemalloc
WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
# No contraction and no fast-math anywhere: the rule of bits needs every float operation as written.
COMMON  := -D_GNU_SOURCE -I. -O2 -g -fno-math-errno -ffp-contract=off -pthread -MMD -MP
BASE    := -std=c11 $(COMMON) $(WARN)
LIBS     = $(shell pkg-config --libs $(PKGS)) -lpthread -lm
INCS     = $(shell pkg-config --cflags $(PKGS))
CFLAGS  ?=
LDFLAGS ?=

SRC     := $(filter-out kernels/comm_mpi.c,$(wildcard base/*.c config/*.c kernels/*.c kernels/cpu/*.c engine/*.c engine/grammar/*.c engine/text/*.c engine/models/*.c server/*.c))
OBJ     := $(SRC:%.c=$(BUILD)/%.o)
LIB     := $(BUILD)/libquern.a
BIN     := $(BUILD)/quern
# The plug-in for several processes, where an MPI's pkg-config file is found (libopenmpi-dev).
MPI     := $(firstword $(foreach p,ompi-c mpi-c mpich,$(shell pkg-config --exists $(p) 2>/dev/null && echo $(p))))
PLUGINS := $(if $(MPI),$(patsubst kernels/%.c,$(BUILD)/%.so,$(wildcard kernels/comm_mpi.c)))
TESTS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
FUZZERS := $(patsubst tests/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz_*.c))

# kernels/cuda is built twice from the same files: for devices by nvcc (CUDA=1), and for the emulator,
# where g++ reads the .cu files and X_emu.cpp takes the place of X.c or X.cu.  Both are linked before
# the library of all other objects, with a kernels.o of their own that lists them.
CU      := $(wildcard kernels/cuda/*.cu)
CU_C    := $(wildcard kernels/cuda/*.c)
CU_CPP  := $(wildcard kernels/cuda/*.cpp)
EMU     := $(BUILD)-emu
EMU_SEEDS ?= 1 2
E2E_EMU ?= tests/e2e/test_openai_client.py tests/e2e/test_demo.py::test_greedy_ids \
  $(addprefix tests/e2e/test_pooled.py::,test_full_attention_vectors_are_those_of_transformers test_mean_vectors_are_those_of_transformers)
EMU_NOT := $(CU_CPP:%_emu.cpp=%.c) $(CU_CPP:%_emu.cpp=%.cu)
EMU_OBJ := $(patsubst %,$(EMU)/%.o,kernels/kernels.c $(CU_CPP) $(filter-out $(EMU_NOT),$(CU) $(CU_C)))
EMU_TESTS := $(patsubst tests/%,$(EMU)/tests/%,$(basename $(wildcard tests/cuda/test_*.cu tests/cuda/test_*.c)))
ifeq ($(CUDA),1)
CUDA_OBJ := $(BUILD)/cuda/kernels/kernels.o $(CU:%=$(BUILD)/cuda/%.o) $(CU_C:%.c=$(BUILD)/cuda/%.o)
CUDA_LIBS = $(firstword $(wildcard $(CUDA_HOME)/lib64/libcudart_static.a $(CUDA_HOME)/lib/libcudart_static.a)) -lstdc++ -lrt -ldl
# Device code only, no PTX: a driver that would have to translate it takes seconds at every start.
NVFLAGS := -std=c++17 -O3 -I. -Xptxas -v -Werror all-warnings -Xcompiler -ffp-contract=off \
  $(foreach a,$(ARCHS),-gencode arch=compute_$(a),code=sm_$(a))
endif

ARCH    := $(shell uname -m)
ifeq ($(ARCH),x86_64)
$(BUILD)/kernels/cpu/%_avx512.o: ISA = -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mbmi2 -mprefer-vector-width=512
$(BUILD)/kernels/cpu/%_avx2.o:   ISA = -O3 -mavx2 -mfma -mf16c -mbmi2
$(BUILD)/kernels/cpu/%_avxvnni.o: ISA = -O3 -mavx2 -mfma -mf16c -mbmi2 -mavxvnni
endif
$(BUILD)/kernels/cpu/%_portable.o: ISA = -O3

.DEFAULT_GOAL := all
.PHONY: all run test tests unit cuda-emu cuda-emu-asan emu-tests cuda-objects gpu-tests ptxas e2e e2e-emu asan-build tsan-build fuzzers lint format asan tsan fuzz bench golden install clean help deps deps-test FORCE

all: $(BIN) $(PLUGINS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(INCS) $(ISA) $(CFLAGS) -c $< -o $@

$(BUILD)/version.h: FORCE
	@mkdir -p $(@D)
	@printf '#define QUERN_VERSION "%s"\n#define QUERN_COMMIT "%s"\n' '$(VERSION)' '$(COMMIT)' > $@.$$$$ && \
	  if cmp -s $@.$$$$ $@; then rm $@.$$$$; else mv $@.$$$$ $@; fi
$(BUILD)/server/%.o: BASE += -I$(BUILD)
$(OBJ): | $(BUILD)/version.h

# What ptxas says about registers, spills and shared memory stays beside the object: tests/test_ptxas.py.
$(BUILD)/cuda/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(Q)$(NVCC) $(NVFLAGS) -MMD -MP -MF $(@:.o=.d) -MT $@ -c $< -o $@ >$(@:.o=.ptxas) 2>&1 || { cat $(@:.o=.ptxas); rm -f $@; exit 1; }
$(BUILD)/cuda/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) -DHAVE_CUDA -isystem $(CUDA_HOME)/include $(INCS) $(CFLAGS) -c $< -o $@
cuda-objects: $(CUDA_OBJ)
$(BUILD)/cuda/tests/cuda/%: $(BUILD)/cuda/tests/cuda/%.cu.o $(CUDA_OBJ) $(LIB)
	$(Q)$(CXX) $(LDFLAGS) $^ $(LIBS) $(CUDA_LIBS) $(shell pkg-config --libs check) -o $@
$(BUILD)/cuda/tests/cuda/%: $(BUILD)/cuda/tests/cuda/%.o $(CUDA_OBJ) $(LIB)
	$(Q)$(CXX) $(LDFLAGS) $^ $(LIBS) $(CUDA_LIBS) $(shell pkg-config --libs check) -o $@
gpu-tests: $(patsubst $(EMU)/%,$(BUILD)/cuda/%,$(filter-out %/test_planted,$(EMU_TESTS))) ## the tests of tests/cuda for a machine with a GPU (run with CK_FORK=no)

$(LIB): $(filter-out $(BUILD)/server/main.o,$(OBJ))
	@rm -f $@
	$(Q)ar qcs $@ $^

$(BIN): $(BUILD)/server/main.o $(CUDA_OBJ) $(LIB)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) $(CUDA_LIBS) -o $@

# nvcc knows `#pragma unroll`; the filter leaves out what only C has, and nobody fuzzes kernels.
comma   := ,
EMU_CXX  = $(CXX) -std=c++17 $(COMMON) -fno-strict-aliasing -Wno-unknown-pragmas -Wno-pass-failed \
  $(filter-out -Wstrict-prototypes -Wmissing-prototypes -Wvla,$(WARN)) $(subst $(comma)fuzzer-no-link,,$(CFLAGS))
$(EMU)/%.c.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) -DHAVE_CUDA_EMU $(INCS) $(CFLAGS) -c $< -o $@
$(EMU)/%.cpp.o: %.cpp
	@mkdir -p $(@D)
	$(Q)$(EMU_CXX) -c $< -o $@
$(EMU)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(Q)$(EMU_CXX) -x c++ -c $< -o $@
$(EMU)/quern: $(BUILD)/server/main.o $(EMU_OBJ) $(LIB)
	$(Q)$(CXX) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@
$(EMU)/tests/cuda/%: $(EMU)/tests/cuda/%.o $(EMU_OBJ) $(LIB)
	$(Q)$(CXX) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) $(shell pkg-config --libs check) -o $@
.SECONDARY: $(EMU_TESTS:=.o)
$(EMU)/tests/cuda/%.o: tests/cuda/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(INCS) $(CFLAGS) -c $< -o $@
$(EMU)/tests/cuda/%.o: tests/cuda/%.cu
	@mkdir -p $(@D)
	$(Q)$(EMU_CXX) $(shell pkg-config --cflags check) -x c++ -c $< -o $@

$(BUILD)/comm_mpi.so: kernels/comm_mpi.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(shell pkg-config --cflags $(MPI)) $(CFLAGS) $(LDFLAGS) -fPIC -shared $< $(shell pkg-config --libs $(MPI)) -o $@
-include $(BUILD)/comm_mpi.d

$(BUILD)/tests/%: tests/%.c $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(INCS) $(CFLAGS) $(LDFLAGS) $< $(LIB) $(LIBS) $(shell pkg-config --libs check) -o $@

$(BUILD)/bench/bench_http $(BUILD)/tests/test_turns $(BUILD)/fuzz/fuzz_request: BASE += -I$(BUILD)
$(BUILD)/bench/%: tests/bench/%.c $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(INCS) $(CFLAGS) $(LDFLAGS) $< $(LIB) $(LIBS) -o $@

deps: ## install what building and running needs
	@docker/deps.sh run
deps-test: ## install what the tests need
	@docker/deps.sh test

run: deps ## install what is missing, build, serve the demo model on 127.0.0.1:8080
	@$(MAKE) --no-print-directory $(BIN)
	$(BIN) serve $(MODEL) $(ARGS)

test: deps-test ## the same for the tests, then everything CI runs
	@tests/run-all.sh

unit: $(TESTS) ## unit and integration tests (check)
	@TEST_JOBS=$(TEST_JOBS) tests/run-unit.sh $(TESTS)

cuda-emu: emu-tests ## the CUDA back end on the CPU: its server and tests, in three orders of threads
	@TEST_JOBS=$(TEST_JOBS) tests/run-unit.sh $(EMU_TESTS)
	@set -e; for s in $(EMU_SEEDS); do echo "-- EMU_SEED=$$s"; EMU_SEED=$$s TEST_JOBS=$(TEST_JOBS) tests/run-unit.sh $(EMU_TESTS); done

e2e: $(BIN) $(PLUGINS) $(BUILD)/bench/bench_masks ## the served binary driven over HTTP, with the official clients
	@tests/run-e2e.sh $(BIN)

e2e-emu: $(EMU)/quern ## the emulated back end behind the server
	@QUERN_DEVICE=cuda-emu tests/run-e2e.sh $(EMU)/quern $(E2E_EMU)

ptxas: $(CUDA_OBJ) ## registers, shared memory and spills of the kernels, against tests/data/ptxas_plan.txt
	@tests/test_ptxas.py $(BUILD)/cuda/kernels "$(ARCHS)"

lint: ## floors, portability seams, formatting, cppcheck, shellcheck
	@tests/lint.sh

format: ## clang-format everything in place
	clang-format -i $(foreach x,c h cu cuh cpp,$(wildcard */*.$(x) */*/*.$(x)))

# Sanitizer builds link no jemalloc; clang's serves the unit tests, the emulated kernels and the fuzz
# targets.  QUERN_TEST_QUICK shrinks the slow matrices, which the plain run has in full.  TSan runs what
# starts threads; test_sampling, a minute of softmax there, goes through code that test_engine goes through.
SAN      = QUERN_TEST_QUICK=1 $(MAKE) --no-print-directory CUDA=0 TEST_JOBS=2 PKGS="$(filter-out jemalloc,$(PKGS))"
ASAN     = $(SAN) BUILD=$(BUILD)-asan CC="$(CLANG)" LDFLAGS="-fsanitize=address,undefined" \
  CFLAGS="-O1 -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
TSAN     = $(SAN) BUILD=$(BUILD)-tsan LDFLAGS="-fsanitize=thread" CFLAGS="-O1 -fsanitize=thread -fno-omit-frame-pointer" \
  TESTS="$(TSAN_TESTS:tests/%.c=$(BUILD)-tsan/tests/%)"
TSAN_TESTS := $(wildcard $(addprefix tests/test_,comm*.c engine*.c gate.c grammar_cache.c gmatch.c gmatch_threads.c keys.c log.c pool.c rank*.c response*.c sample.c tp*.c))
asan: ## unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(ASAN) unit TESTS="$(patsubst tests/%.c,$(BUILD)-asan/tests/%,$(filter-out %/test_sampling.c,$(wildcard tests/test_*.c)))"
cuda-emu-asan: ## the emulated kernels under the same
	@$(ASAN) EMU_SEEDS= cuda-emu
tsan: ## unit tests that start threads, under ThreadSanitizer
	@$(TSAN) unit
asan-build:
	@$(ASAN) $(BUILD)-asan/server/main.o tests fuzzers emu-tests
tsan-build:
	@$(TSAN) tests

fuzz: ## every fuzz target for FUZZ_SECONDS in all (300), two at a time
	@$(ASAN) fuzzers
	@tests/run-fuzz.sh $(FUZZERS:$(BUILD)/%=$(BUILD)-asan/%)
$(BUILD)/fuzz/%: tests/%.c $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(INCS) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $< $(LIB) $(LIBS) -o $@
fuzzers: $(FUZZERS)
tests: $(TESTS)
emu-tests: $(EMU)/quern $(EMU_TESTS)

bench: $(BIN) $(BENCHES) ## build the micro-benchmarks of tests/bench
golden: ## regenerate tests/data from tests/tools (needs PyPI torch and transformers)
	@tests/tools/golden.sh

install: $(BIN) $(PLUGINS) ## copy the binary and the demo model under PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/quern/demo
	install -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/quern
	$(if $(PLUGINS),install -d $(DESTDIR)$(PREFIX)/lib/quern && install -m 755 $(PLUGINS) $(DESTDIR)$(PREFIX)/lib/quern)
	install -m 644 $(wildcard models/demo/*.json models/demo/*.jinja models/demo/*.safetensors models/demo/README.md) $(DESTDIR)$(PREFIX)/share/quern/demo

clean: ## remove build outputs
	rm -rf build build-*

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

-include $(OBJ:.o=.d) $(CUDA_OBJ:.o=.d) $(EMU_OBJ:.o=.d) $(EMU_TESTS:=.d)
