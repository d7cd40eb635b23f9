# fero: build, test, install. `make help` lists the targets.
#
# Files are found by folder, so a new source or test needs no change here:
#
#   src/{base,ring,wire,net,log,shard,engine,engine/cluster}/*.c   build/libfero.a, build/libfero.so
#   src/cli/*.c, bench/*.c                                         build/fero
#   tests/{unit,property,stress}/test_*.c                          one cmocka program each
#   tests/sim/*.c                                                  the simulator: build/fero-sim, a test
#   tests/fuzz/fuzz_*.c                                            one replay (or libFuzzer) program each
#   tests/e2e/*.c                                                  programs that its scripts run
#   tests/support/*.c                                              linked into every test program
#   tests/e2e/*.sh                                                 run against build/fero
#   docs/man, include/fero.h, `fero help --man`                    build/man: see scripts/man
#
# Variables a caller may set: BUILD, CC, MARCH, SANITIZE, DEBUG, LTO, EXTRA_CFLAGS, V, PREFIX,
# DESTDIR, ARGS, ONLY, FUZZ_SECONDS, SEEDS, SECONDS. A sanitizer build belongs in a BUILD folder of its own.

BUILD ?= build
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
FUZZ_SECONDS ?= 60

ifeq ($(origin CC),default)
CC := gcc
endif

# The oldest machine that a build must run on. A package cannot assume more than the baseline;
# MARCH=native is for one's own machine.
MACHINE := $(shell uname -m)
ifeq ($(MACHINE),x86_64)
MARCH ?= x86-64
MARCH_FLAGS := -march=$(MARCH) $(if $(filter x86-64%,$(MARCH)),-mtune=generic)
else
MARCH_FLAGS := $(if $(MARCH),-march=$(MARCH))
endif

# All cores, unless the caller says -j or this is a make inside a make, which shares its parent's.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# `make clean all` means first the one, then the other.
ifneq ($(filter clean,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif

comma := ,
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(2)')

# ---- flags -------------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wswitch-enum -Wmissing-prototypes -Wvla -Wundef
CPPFLAGS_ALL := -D_GNU_SOURCE -Iinclude -Isrc $(CPPFLAGS)
LANGUAGE := -std=gnu17

ifdef SANITIZE
# Sanitizers see more with frame pointers and little inlining, and they make gcc warn of variables
# that are set on every path, so a warning is not an error here.
MODE := -O1 -g -fno-omit-frame-pointer -fsanitize=$(SANITIZE) -fno-sanitize-recover=all \
    -Werror=implicit -DFERO_DEBUG
MODE_LINK := -fsanitize=$(SANITIZE)
else
MODE := -O2 -g -Werror -D_FORTIFY_SOURCE=2 $(if $(DEBUG),-DFERO_DEBUG)
endif

ifdef LTO
MODE += -flto=auto
MODE_LINK += -flto=auto -O2
AR := gcc-ar
endif

# Position independent and hidden by default: one set of objects serves the archive, the shared
# library and the program, and only what fero.h marks is exported.
CFLAGS_ALL := $(LANGUAGE) $(MODE) $(WARNINGS) $(MARCH_FLAGS) -fPIC -fvisibility=hidden $(EXTRA_CFLAGS)
LDFLAGS_ALL := $(MODE_LINK) -Wl,-z,relro,-z,now $(LDFLAGS)
LIBS := -luring -lpthread -ldl -lm

# ---- files -------------------------------------------------------------------------------------

LIB_FOLDERS := base ring wire net log shard engine engine/cluster
LIB_SOURCES := $(wildcard $(LIB_FOLDERS:%=src/%/*.c))
CLI_SOURCES := $(wildcard src/cli/*.c)
BENCH_SOURCES := $(wildcard bench/*.c)
SUPPORT_SOURCES := $(wildcard tests/support/*.c)
SIM_SOURCES := $(filter-out tests/sim/test_% tests/sim/fero_sim.c,$(wildcard tests/sim/*.c))
TEST_SOURCES := $(wildcard tests/unit/test_*.c tests/property/test_*.c tests/stress/test_*.c)
# The simulator has a test and a command of its own. What has points for it is compiled a second time.
SIM_TEST_SOURCES := $(wildcard tests/sim/test_*.c)
SIM_POINTS := $(shell grep -l '"base/buggify.h"' $(LIB_SOURCES))
FUZZ_SOURCES := $(wildcard tests/fuzz/fuzz_*.c)
E2E_SOURCES := $(wildcard tests/e2e/*.c)
MAN_SOURCES := scripts/man scripts/man3.awk include/fero.h $(wildcard docs/man/*)

objects = $(patsubst %.c,$(BUILD)/%.o,$(1))
LIB_OBJECTS := $(call objects,$(LIB_SOURCES))
UPDATES_OBJECTS := $(call objects,$(wildcard src/shard/updates*.c))
# Compiled a second time for newer processors; which copy runs is decided when the program starts.
ifeq ($(MACHINE),x86_64)
V3_OBJECTS := $(UPDATES_OBJECTS:.o=_v3.o) $(BUILD)/src/log/checksum_v3.o
LIB_OBJECTS += $(V3_OBJECTS)
endif
CLI_OBJECTS := $(call objects,$(CLI_SOURCES))
BENCH_OBJECTS := $(call objects,$(BENCH_SOURCES))
SUPPORT_OBJECTS := $(call objects,$(SUPPORT_SOURCES))
# What a test may also call: the benches, and the command line without its main().
EXTRA_OBJECTS := $(call objects,$(BENCH_SOURCES) \
    $(filter-out src/cli/main.c,$(CLI_SOURCES)))
TEST_OBJECTS := $(call objects,$(TEST_SOURCES))
SIM_OBJECTS := $(call objects,$(SIM_SOURCES))
SIM_POINTS_OBJECTS := $(SIM_POINTS:%.c=$(BUILD)/%_sim.o)
SIM_MAIN_OBJECTS := $(call objects,$(SIM_TEST_SOURCES) $(wildcard tests/sim/fero_sim.c))
SIM_TEST_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(SIM_TEST_SOURCES))
FUZZ_OBJECTS := $(call objects,$(FUZZ_SOURCES))
E2E_OBJECTS := $(call objects,$(E2E_SOURCES))
TEST_PROGRAMS := $(TEST_OBJECTS:.o=)
FUZZ_PROGRAMS := $(FUZZ_OBJECTS:.o=)
E2E_PROGRAMS := $(E2E_OBJECTS:.o=)
STRESS_PROGRAMS := $(filter $(BUILD)/tests/stress/%,$(TEST_PROGRAMS))
ALL_OBJECTS := $(sort $(LIB_OBJECTS) $(CLI_OBJECTS) $(EXTRA_OBJECTS) $(SUPPORT_OBJECTS) \
    $(SIM_OBJECTS) $(SIM_POINTS_OBJECTS) $(SIM_MAIN_OBJECTS) $(TEST_OBJECTS) $(FUZZ_OBJECTS) $(E2E_OBJECTS) $(BUILD)/tests/fuzz/replay.o)

# There may be nothing to link yet in a young tree.
FERO := $(if $(CLI_SOURCES),$(BUILD)/fero)
SHARED := $(if $(SANITIZE),,$(if $(LIB_SOURCES),$(BUILD)/libfero.so))
VERSION := $(or $(shell sed -n 's/^.define FERO_VERSION "\([^"]*\)".*/\1/p' include/fero.h \
    2>/dev/null),0.1.0)

# ---- targets -----------------------------------------------------------------------------------

.PHONY: all run test check asan tsan fuzz hostile sim bench campaign-idle lint format clean install \
    uninstall manual help deps deps-test library tests fuzz-programs fuzz-campaign stress-programs clang print-flags

all: library $(FERO) ## Build build/fero and the libraries (the default)

library: $(BUILD)/libfero.a $(SHARED)

run: all ## Start a node of the cache "demo": make run ARGS="--shards 2"
	$(Q)exec $(BUILD)/fero serve demo $(ARGS)

test: ## Run every test suite; ONLY="unit e2e/crash*" chooses some
	$(Q)set -f; scripts/test $(ONLY)

check: test ## The same as test

asan: ## Run the tests under AddressSanitizer and UBSan
	$(Q)scripts/test asan

tsan: ## Run the stress tests under ThreadSanitizer
	$(Q)scripts/test tsan

fuzz: ## Fuzz each decoder for FUZZ_SECONDS (60) with clang's libFuzzer
	+$(Q)$(MAKE) BUILD=$(BUILD)/fuzz CC=clang SANITIZE=fuzzer-no-link,address,undefined FUZZER=1 \
	    fuzz-campaign

hostile: all tests ## Send 100,000 broken streams to each listener (STREAMS, SEED)
	$(Q)for io in uring epoll; do \
	    STREAMS=$(or $(STREAMS),100000) FERO_IO=$$io FERO=$(BUILD)/fero tests/e2e/hostile.sh \
	        >$(BUILD)/hostile.$$io.out; \
	    grep '^not ok\|^# mutated' $(BUILD)/hostile.$$io.out; \
	    ! grep -q '^not ok' $(BUILD)/hostile.$$io.out || exit 1; \
	done

sim: $(BUILD)/fero-sim ## Run random worlds in the simulator: make sim SEEDS=1000 SECONDS=600
	$(Q)exec $(BUILD)/fero-sim $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
	    $(ARGS)

bench: all ## Run the benchmarks: make bench ARGS=latency (all by default)
	$(Q)exec $(BUILD)/fero bench $(or $(ARGS),all)

campaign-idle: all tests ## Open 100,000 idle connections and measure what each takes
	$(Q)FERO=$(CURDIR)/$(BUILD)/fero tests/campaign/idle.sh

lint: deps-test ## Check layers, banned calls, headers, format, and run the analyzers
	$(Q)tests/lint/run $(ONLY)

format: deps-test ## Format the C files in place
	$(Q)find src include bench tests examples -name '*.[ch]' -exec clang-format -i {} + 2>/dev/null \
	    || test ! -d examples

clang: ## Build with clang, into build/clang
	+$(Q)$(MAKE) BUILD=$(BUILD)/clang CC=clang all tests

clean: ## Remove the build folder
	$(Q)rm -rf $(BUILD)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

deps: ## Install the Debian packages that a build needs, if absent
	@scripts/deps build

deps-test: deps
	@scripts/deps test

tests: $(TEST_PROGRAMS) $(SIM_TEST_PROGRAMS) $(E2E_PROGRAMS) fuzz-programs
fuzz-programs: $(FUZZ_PROGRAMS)
stress-programs: $(STRESS_PROGRAMS)

# For scripts: how C files are compiled, apart from how they are optimized.
print-flags:
	@printf '%s\n' '$(LANGUAGE) $(CPPFLAGS_ALL) -I. $(WARNINGS)'

# ---- rules -------------------------------------------------------------------------------------

# An object depends on its flags and an archive on the list of its sources, so that another choice
# of flags, or a file that went away, is never a stale build.
COMMAND := $(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LDFLAGS_ALL) $(if $(FUZZER),fuzzer)
SOURCE_LIST := $(LIB_SOURCES) $(CLI_SOURCES) $(BENCH_SOURCES) $(SUPPORT_SOURCES) $(SIM_SOURCES)
ifeq ($(filter clean help format print-flags,$(MAKECMDGOALS)),)
$(shell mkdir -p $(BUILD))
ifneq ($(strip $(file <$(BUILD)/flags)),$(strip $(COMMAND)))
$(file >$(BUILD)/flags,$(strip $(COMMAND)))
endif
ifneq ($(strip $(file <$(BUILD)/sources)),$(strip $(SOURCE_LIST)))
$(file >$(BUILD)/sources,$(strip $(SOURCE_LIST)))
endif
endif
$(BUILD)/flags:
	@mkdir -p $(BUILD) && printf '%s\n' '$(strip $(COMMAND))' >$@
$(BUILD)/sources:
	@mkdir -p $(BUILD) && printf '%s\n' '$(strip $(SOURCE_LIST))' >$@

# The packages come before the first compilation; order-only, so that they rebuild nothing.
$(ALL_OBJECTS): | deps
$(SUPPORT_OBJECTS) $(TEST_OBJECTS) $(SIM_OBJECTS) $(SIM_MAIN_OBJECTS) $(FUZZ_OBJECTS) $(E2E_OBJECTS): | deps-test

# Tests, benches and the command line may include by path from the root ("bench/bench.h"). A fuzz
# target's one function has its prototype in libFuzzer, not in a header.
$(BUILD)/tests/%.o $(BUILD)/bench/%.o $(BUILD)/src/cli/%.o: CPPFLAGS_ALL += -I.
$(BUILD)/tests/fuzz/%.o: WARNINGS_OFF := -Wno-missing-prototypes

$(filter-out $(V3_OBJECTS) $(SIM_POINTS_OBJECTS),$(ALL_OBJECTS)): $(BUILD)/%.o: %.c $(BUILD)/flags
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(WARNINGS_OFF) -MMD -MP -c -o $@ $<

$(V3_OBJECTS): $(BUILD)/%_v3.o: %.c $(BUILD)/flags
	$(call say,CC,$< for x86-64-v3)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -march=x86-64-v3 -DVARIANT_V3 -MMD -MP -c -o $@ $<

$(SIM_POINTS_OBJECTS): $(BUILD)/%_sim.o: %.c $(BUILD)/flags
	$(call say,CC,$< for the simulator)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -DFERO_SIM -MMD -MP -c -o $@ $<

# There the compiler would pack numbers into vectors only to take them out again.
$(UPDATES_OBJECTS) $(UPDATES_OBJECTS:.o=_v3.o): CFLAGS_ALL += -fno-tree-slp-vectorize
$(BUILD)/src/log/checksum.o $(BUILD)/src/log/checksum_v3.o: CFLAGS_ALL += -funroll-loops

$(BUILD)/libfero.a: $(LIB_OBJECTS) $(BUILD)/sources
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcsD $@ $(LIB_OBJECTS)

$(BUILD)/tests/libextra.a: $(EXTRA_OBJECTS) $(BUILD)/sources
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcsD $@ $(EXTRA_OBJECTS)

$(BUILD)/libfero.so.0: $(LIB_OBJECTS) $(BUILD)/sources
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -shared -Wl,-soname,libfero.so.0 -Wl,-z,defs -o $@ \
	    $(LIB_OBJECTS) $(LIBS)

$(BUILD)/libfero.so: $(BUILD)/libfero.so.0
	$(Q)ln -sf libfero.so.0 $@

# It has and shows all of the public functions, for the services that it loads.
$(BUILD)/fero: $(CLI_OBJECTS) $(BENCH_OBJECTS) $(BUILD)/libfero.a $(BUILD)/sources
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -pie -rdynamic -o $@ $(CLI_OBJECTS) $(BENCH_OBJECTS) \
	    -Wl,--whole-archive $(BUILD)/libfero.a -Wl,--no-whole-archive $(LIBS)

$(TEST_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $(SUPPORT_OBJECTS) $(BUILD)/tests/libextra.a \
    $(BUILD)/libfero.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) $(TEST_LDFLAGS) -pie -o $@ $< $(TEST_LIBS) $(SUPPORT_OBJECTS) \
	    $(BUILD)/tests/libextra.a $(BUILD)/libfero.a -lcmocka $(LIBS)

# The simulator has its own clocks and descriptors, counts memory, and reads logs as they are sealed. The
# objects with points stand before the archive, which has the same ones without.
SIM_WRAPPED := clock_now_ns clock_wall_ms close log_seal \
    memory_take memory_resize memory_put memory_reserve memory_release
SIM_LINK = $(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) $(SIM_WRAPPED:%=-Wl,--wrap=%) -pie -o $@ $< $(SIM_OBJECTS) \
    $(SIM_POINTS_OBJECTS) $(BUILD)/libfero.a -ljansson

$(SIM_TEST_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $(SIM_OBJECTS) $(SIM_POINTS_OBJECTS) $(BUILD)/libfero.a
	$(call say,LD,$@)
	$(Q)$(SIM_LINK) -lcmocka $(LIBS)

$(BUILD)/fero-sim: $(BUILD)/tests/sim/fero_sim.o $(SIM_OBJECTS) $(SIM_POINTS_OBJECTS) \
    $(BUILD)/libfero.a
	$(call say,LD,$@)
	$(Q)$(SIM_LINK) $(LIBS)

$(E2E_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $(SUPPORT_OBJECTS) $(BUILD)/libfero.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) -pie -o $@ $< $(SUPPORT_OBJECTS) $(BUILD)/libfero.a -lcmocka \
	    $(LIBS)

# Under gcc a fuzz target gets a main() that replays its corpus; under `make fuzz`, libFuzzer's.
FUZZ_DRIVER := $(if $(FUZZER),,$(BUILD)/tests/fuzz/replay.o)
$(FUZZ_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $(FUZZ_DRIVER) $(BUILD)/libfero.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) $(if $(FUZZER),-fsanitize=fuzzer) -pie -o $@ $< \
	    $(TEST_LIBS) $(FUZZ_DRIVER) $(BUILD)/libfero.a $(LIBS)

# New inputs go to build/fuzz/corpus; copy those worth keeping to tests/fuzz/corpus/<name>/, where
# <name> is the file's without "fuzz_". A crash leaves its input in build/fuzz/crashes.
FUZZ_RUNS := $(FUZZ_SOURCES:tests/fuzz/fuzz_%.c=fuzz-run-%)
.PHONY: $(FUZZ_RUNS)
fuzz-campaign: $(FUZZ_RUNS)
$(FUZZ_RUNS): fuzz-run-%: $(BUILD)/tests/fuzz/fuzz_%
	@mkdir -p $(BUILD)/corpus/$* $(BUILD)/crashes
	$(call say,FUZZ,$* for $(FUZZ_SECONDS) s)
	$(Q)$< -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(BUILD)/crashes/$*- -timeout=10 \
	    $(BUILD)/corpus/$* $(wildcard tests/fuzz/corpus/$*) >$(BUILD)/$*.out 2>&1 \
	    || { tail -n 60 $(BUILD)/$*.out; echo "fuzz $* failed: see $(BUILD)/crashes/"; exit 1; }
	@printf '  %-5s %s\n' OK "$*: $$(tail -n 1 $(BUILD)/$*.out)"

# Where things go, below DESTDIR. The unit of systemd names the program where it will be.
UNITDIR ?= $(PREFIX)/lib/systemd/system
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions
# The loader does not look elsewhere by itself.
RPATH := $(if $(filter /usr/lib% /usr/local/lib% /lib%,$(LIBDIR)),, -Wl$(comma)-rpath$(comma)$${libdir})

manual: $(BUILD)/man/made ## Make the manual pages, in build/man

$(BUILD)/man/made: $(FERO) $(MAN_SOURCES)
	$(call say,MAN,$(@D))
	$(Q)rm -rf $(@D)/man1 $(@D)/man3 && scripts/man $(abspath $(FERO)) $(abspath $(@D)) && touch $@

install: all manual ## Install under PREFIX (/usr/local), staged below DESTDIR
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	install -m 755 $(BUILD)/fero $(DESTDIR)$(BINDIR)/fero
	install -m 644 $(BUILD)/libfero.a $(DESTDIR)$(LIBDIR)/libfero.a
	install -m 644 $(BUILD)/libfero.so.0 $(DESTDIR)$(LIBDIR)/libfero.so.0
	ln -sf libfero.so.0 $(DESTDIR)$(LIBDIR)/libfero.so
	install -m 644 include/fero.h $(DESTDIR)$(INCLUDEDIR)/fero.h
	printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCLUDEDIR)' '' \
	    'Name: fero' 'Description: A cluster of equal nodes that share a changelog' \
	    'Version: $(VERSION)' 'Cflags: -I$${includedir}' 'Libs: -L$${libdir}$(RPATH) -lfero' \
	    'Libs.private: $(LIBS)' >$(DESTDIR)$(LIBDIR)/pkgconfig/fero.pc
	install -d $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man3 $(DESTDIR)$(UNITDIR)
	install -m 644 $(BUILD)/man/man1/*.1 $(DESTDIR)$(MANDIR)/man1
	install -m 644 $(BUILD)/man/man3/*.3 $(DESTDIR)$(MANDIR)/man3
	sed 's,/usr/local/bin,$(BINDIR),' packaging/fero.service >$(DESTDIR)$(UNITDIR)/fero.service
	install -d $(DESTDIR)$(COMPLETIONDIR)
	$(FERO) completion bash >$(DESTDIR)$(COMPLETIONDIR)/fero
	chmod 644 $(DESTDIR)$(COMPLETIONDIR)/fero
	chmod 644 $(DESTDIR)$(UNITDIR)/fero.service $(DESTDIR)$(LIBDIR)/pkgconfig/fero.pc
	if [ -z '$(DESTDIR)' ]; then ldconfig 2>/dev/null || true; fi

uninstall: manual ## Remove what install put there
	rm -f $(DESTDIR)$(BINDIR)/fero $(DESTDIR)$(LIBDIR)/libfero.a $(DESTDIR)$(LIBDIR)/libfero.so \
	    $(DESTDIR)$(LIBDIR)/libfero.so.0 $(DESTDIR)$(LIBDIR)/pkgconfig/fero.pc \
	    $(DESTDIR)$(INCLUDEDIR)/fero.h $(DESTDIR)$(UNITDIR)/fero.service \
	    $(DESTDIR)$(COMPLETIONDIR)/fero
	cd $(BUILD)/man/man1 && for page in *; do rm -f $(DESTDIR)$(MANDIR)/man1/$$page; done
	cd $(BUILD)/man/man3 && for page in *; do rm -f $(DESTDIR)$(MANDIR)/man3/$$page; done
	if [ -z '$(DESTDIR)' ]; then ldconfig 2>/dev/null || true; fi

# A test that needs more (`--wrap=malloc`, say) has a .mk file of its name beside it:
#   $(BUILD)/tests/unit/test_memory: TEST_LDFLAGS := -Wl,--wrap=malloc
#   $(BUILD)/tests/fuzz/fuzz_json: TEST_LIBS := -ljansson
include $(wildcard tests/*/*.mk)
-include $(ALL_OBJECTS:.o=.d)
