# libFuzzer's targets, with clang's address and undefined behaviour sanitizers, all built into $(BUILD)/fuzz.
#
#   hello        what is a hello, and where does a datagram on a path belong
#   filter       what of a datagram libssl may see, and when; what waits meanwhile
#   extensions   names, session ids, groups and algorithms in a hello
#   session      bytes from a store
#   association  datagrams into a client and a server, and invariants of both
#   insider      records that are protected as they should be, from a peer that has the keys and means harm
#
# Seeds are in spec/fuzz/corpus: `make fuzz-seeds` writes those of genuine handshakes, `make fuzz-merge` keeps what is
# worth it of them and of $(BUILD)/fuzz/corpus, where a run puts what leads somewhere new. Those in spec/fuzz/kept stay,
# whatever they reach: inputs that would show old mistakes. Finds are in $(BUILD)/fuzz/finds; the target's program with such
# a file as its argument shows it again. `make fuzz FUZZ_ARGUMENTS=-runs=0` only runs what is checked in; FUZZ_SECONDS=0 is
# no limit, as for libFuzzer itself, and FUZZ_JOBS=6 then lets all of them run.

FUZZ_TARGETS := hello filter extensions session association insider
FUZZ_DIR := spec/fuzz
FUZZ_OUT = $(BUILD)/fuzz
FUZZ_CC ?= clang
FUZZ_SECONDS ?= 600
FUZZ_JOBS ?= 2
# Inputs of these are sequences, of which the short ones lead nowhere.
FUZZ_FLAGS_association := -max_len=2048 -len_control=0
FUZZ_FLAGS_insider := $(FUZZ_FLAGS_association)
FUZZ_FLAGS_filter := -max_len=1024 -len_control=10
# Quick rather than wordy.
FUZZ_ENVIRONMENT := ASAN_OPTIONS=malloc_context_size=2:quarantine_size_mb=16 UBSAN_OPTIONS=print_stacktrace=1

FUZZ_COMPILE = $(FUZZ_CC) -std=c11 -D_GNU_SOURCE -O1 -g -fno-omit-frame-pointer -Wall -Wextra -Wshadow -Wconversion \
  $(if $(WERROR),-Werror) -Isrc -fsanitize=address,undefined -fno-sanitize-recover=undefined $(LUA_CFLAGS) $(SSL_CFLAGS) $(FUZZ_CFLAGS)
FUZZ_OBJECTS = $(SOURCES:src/%.c=$(FUZZ_OUT)/obj/%.o) $(FUZZ_OUT)/fixed.o
FUZZ_LIBS = $(eval FUZZ_LIBS := $(shell pkg-config --libs luajit libssl libcrypto))$(FUZZ_LIBS)
FUZZ_PROGRAMS = $(FUZZ_TARGETS:%=$(FUZZ_OUT)/%)

$(FUZZ_OUT)/obj/%.o: src/%.c $(FUZZ_DIR)/fuzz.mk
	@mkdir -p $(@D)
	$(FUZZ_COMPILE) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

# Coverage of the targets themselves would lead the fuzzer astray.
$(FUZZ_OUT)/%.o: $(FUZZ_DIR)/%.c $(FUZZ_DIR)/fuzz.mk
	@mkdir -p $(@D)
	$(FUZZ_COMPILE) -MMD -MP -c -o $@ $<

FUZZ_SCRIPTS = extensions association insider seeds
$(FUZZ_SCRIPTS:%=$(FUZZ_OUT)/%.o): $(FUZZ_OUT)/%.o: $(FUZZ_DIR)/script.c $(FUZZ_DIR)/fuzz.mk
	@mkdir -p $(@D)
	$(FUZZ_COMPILE) -MMD -MP -DSCRIPT='"$(FUZZ_DIR)/$*.lua"' -c -o $@ $<

-include $(wildcard $(FUZZ_OUT)/*.d $(FUZZ_OUT)/obj/*/*.d)

$(FUZZ_OUT)/hello: $(FUZZ_OUT)/hello.o $(FUZZ_OBJECTS)
$(FUZZ_OUT)/filter $(FUZZ_OUT)/session: $(FUZZ_OUT)/%: $(FUZZ_OUT)/%.o $(FUZZ_OUT)/script.o $(FUZZ_OBJECTS)
$(FUZZ_SCRIPTS:%=$(FUZZ_OUT)/%): $(FUZZ_OUT)/%: $(FUZZ_OUT)/%.o $(FUZZ_OBJECTS)
$(FUZZ_PROGRAMS) $(FUZZ_OUT)/seeds:
	$(FUZZ_COMPILE) -fsanitize=fuzzer -rdynamic -o $@ $^ $(FUZZ_LIBS)

.PHONY: fuzz fuzz-seeds fuzz-merge $(FUZZ_TARGETS:%=fuzz-%) $(FUZZ_TARGETS:%=fuzz-merge-%)

fuzz: ## libFuzzer for FUZZ_SECONDS per target (600), FUZZ_JOBS at once (2); fails at any find
	@.ci/setup build fuzz
	@$(MAKE) $(FUZZ_PROGRAMS)
	@rm -f $(FUZZ_TARGETS:%=$(FUZZ_OUT)/%.log)
	@spec/support/progress.sh 'awk -f $(FUZZ_DIR)/progress.awk $(FUZZ_OUT)/*.log' $(MAKE) -k -j$(FUZZ_JOBS) $(FUZZ_TARGETS:%=fuzz-%)

# libFuzzer prints a line for each input that it keeps; the log has them.
$(FUZZ_TARGETS:%=fuzz-%): fuzz-%: $(FUZZ_OUT)/%
	@mkdir -p $(FUZZ_OUT)/corpus/$* $(FUZZ_OUT)/finds
	@$(FUZZ_ENVIRONMENT) $< -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
	  -artifact_prefix=$(FUZZ_OUT)/finds/$*- $(FUZZ_FLAGS_$*) $(FUZZ_ARGUMENTS) $(FUZZ_OUT)/corpus/$* $(wildcard $(FUZZ_DIR)/corpus/$* $(FUZZ_DIR)/kept/$*) >$(FUZZ_OUT)/$*.log 2>&1 \
	  || { tail -n 60 $(FUZZ_OUT)/$*.log; echo "$*: FOUND SOMETHING, see $(FUZZ_OUT)/finds"; exit 1; }
	@if [ -t 2 ]; then printf '\r\033[K' >&2; fi
	@awk -v target=$* '/^#.* cov: / { cov = $$4 } /number_of_executed_units/ { runs = $$2 } /average_exec_per_sec/ { speed = $$2 } \
	  END { printf "%-12s %d runs, %d per second, %d edges\n", target, runs, speed, cov }' $(FUZZ_OUT)/$*.log

fuzz-seeds: $(FUZZ_OUT)/seeds
	@mkdir -p $(FUZZ_TARGETS:%=$(FUZZ_DIR)/corpus/%) $(FUZZ_TARGETS:%=$(FUZZ_DIR)/kept/%)
	@$< -runs=0 >/dev/null 2>&1

# What the checked-in corpus and the one in $(BUILD) reach, with as few and as short inputs as will do.
fuzz-merge: $(FUZZ_TARGETS:%=fuzz-merge-%)
	@du -sb $(FUZZ_DIR)/corpus $(FUZZ_DIR)/kept

$(FUZZ_TARGETS:%=fuzz-merge-%): fuzz-merge-%: $(FUZZ_OUT)/%
	@rm -rf $(FUZZ_OUT)/merged/$*; mkdir -p $(FUZZ_OUT)/merged/$* $(FUZZ_OUT)/corpus/$*
	@$(FUZZ_ENVIRONMENT) $< -merge=1 $(FUZZ_FLAGS_$*) $(FUZZ_OUT)/merged/$* $(FUZZ_DIR)/corpus/$* $(FUZZ_OUT)/corpus/$* >$(FUZZ_OUT)/merge-$*.log 2>&1
	@rm -rf $(FUZZ_DIR)/corpus/$*; mv $(FUZZ_OUT)/merged/$* $(FUZZ_DIR)/corpus/$*
