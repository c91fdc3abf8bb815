# Quern.  Two commands matter: `make run` and `make test`; `make help` lists the rest.
BUILD   ?= build
PREFIX  ?= /usr/local
ifeq ($(origin CC),default)
CC       = gcc
endif
CLANG   ?= clang
MODEL   ?= models/demo
ARGS    ?=
TEST_JOBS ?= 1

# V=1 shows the commands.
Q        = $(if $(V),,@echo "  $(@:$(BUILD)/%=%)";)

VERSION := 0.1.0
COMMIT  := $(shell git rev-parse --short=10 HEAD 2>/dev/null || echo unknown)

PKGS    := libmicrohttpd libcjson libpcre2-8 libutf8proc libxxhash jemalloc
WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
# No contraction and no fast-math anywhere: the rule of bits needs every float operation as written.
BASE    := -std=c11 -D_GNU_SOURCE -I. -O2 -g -fno-math-errno -ffp-contract=off -pthread -MMD -MP $(WARN)
LIBS     = $(shell pkg-config --libs $(PKGS)) -lpthread -lm
INCS     = $(shell pkg-config --cflags $(PKGS))
CFLAGS  ?=
LDFLAGS ?=

SRC     := $(wildcard base/*.c config/*.c kernels/*.c kernels/cpu/*.c engine/*.c engine/text/*.c engine/models/*.c server/*.c)
OBJ     := $(SRC:%.c=$(BUILD)/%.o)
LIB     := $(BUILD)/libquern.a
BIN     := $(BUILD)/quern
TESTS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
BENCHES := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
FUZZERS := $(patsubst tests/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz_*.c))

ARCH    := $(shell uname -m)
ifeq ($(ARCH),x86_64)
$(BUILD)/kernels/cpu/%_avx512.o: ISA = -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx2 -mfma -mf16c -mbmi2 -mprefer-vector-width=512
$(BUILD)/kernels/cpu/%_avx2.o:   ISA = -O3 -mavx2 -mfma -mf16c -mbmi2
$(BUILD)/kernels/cpu/%_avxvnni.o: ISA = -O3 -mavx2 -mfma -mf16c -mbmi2 -mavxvnni
endif
$(BUILD)/kernels/cpu/%_portable.o: ISA = -O3

.DEFAULT_GOAL := $(BIN)
.PHONY: all run test unit e2e lint format asan tsan fuzz bench golden install clean help deps deps-test FORCE

all: $(BIN)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(INCS) $(ISA) $(CFLAGS) -c $< -o $@

$(BUILD)/version.h: FORCE
	@mkdir -p $(@D)
	@printf '#define QUERN_VERSION "%s"\n#define QUERN_COMMIT "%s"\n' '$(VERSION)' '$(COMMIT)' > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$(BUILD)/server/%.o: BASE += -I$(BUILD)
$(OBJ): | $(BUILD)/version.h

$(LIB): $(filter-out $(BUILD)/server/main.o,$(OBJ))
	@rm -f $@
	$(Q)ar qcs $@ $^

$(BIN): $(BUILD)/server/main.o $(LIB)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

$(BUILD)/tests/%: tests/%.c $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(INCS) $(CFLAGS) $(LDFLAGS) $< $(LIB) $(LIBS) $(shell pkg-config --libs check) -o $@

$(BUILD)/bench/bench_http: BASE += -I$(BUILD)
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

e2e: $(BIN) ## the served binary driven over HTTP, with the official clients
	@tests/run-e2e.sh $(BIN)

lint: ## floors, portability seams, formatting, cppcheck, shellcheck
	@tests/lint.sh

format: ## clang-format everything in place
	clang-format -i $(wildcard */*.c */*.h */*/*.c */*/*.h)

# Sanitizer builds link no jemalloc.  TSan runs what starts threads; the numeric matrices of
# test_attention, test_linear and test_model would take it half an hour and start the same pool.
SAN      = $(MAKE) --no-print-directory unit TEST_JOBS=2 PKGS="$(filter-out jemalloc,$(PKGS))"
TSAN    := bits engine engine_life engine_open gate oom ops pool sample sampling template tokenizer
asan: ## unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(SAN) BUILD=$(BUILD)-asan LDFLAGS="-fsanitize=address,undefined" \
	  CFLAGS="-O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
tsan: ## unit tests that start threads, under ThreadSanitizer
	@$(SAN) BUILD=$(BUILD)-tsan LDFLAGS="-fsanitize=thread" CFLAGS="-O1 -fsanitize=thread -fno-omit-frame-pointer" \
	  TESTS="$(TSAN:%=$(BUILD)-tsan/tests/test_%)"

fuzz: ## every fuzz target for FUZZ_SECONDS in all (300), two at a time
	@tests/run-fuzz.sh
$(BUILD)/fuzz/%: tests/%.c $(LIB)
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(INCS) $(CFLAGS) -fsanitize=fuzzer $(LDFLAGS) $< $(LIB) $(LIBS) -o $@
fuzzers: $(FUZZERS)

bench: $(BIN) $(BENCHES) ## build the micro-benchmarks of tests/bench
golden: ## regenerate tests/data from tests/tools (needs PyPI torch and transformers)
	@tests/tools/golden.sh

install: $(BIN) ## copy the binary and the demo model under PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/quern/demo
	install -m 755 $(BIN) $(DESTDIR)$(PREFIX)/bin/quern
	install -m 644 $(wildcard models/demo/*.json models/demo/*.jinja models/demo/*.safetensors models/demo/README.md) $(DESTDIR)$(PREFIX)/share/quern/demo

clean: ## remove build outputs
	rm -rf build build-*

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

-include $(OBJ:.o=.d)
