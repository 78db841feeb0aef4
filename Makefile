# luvit-dtls: the C core (src → build/dtls/core.so) and the Lua files (lua/dtls, used from where they are).
# `make help` lists the targets.
#
# Tools are asked (pkg-config, the compiler) when a recipe first needs the answer, never while this file is read:
# `make demo` and `make test` start on machines where those tools are still missing.

# shared: the system's libssl, or the host's when it exports one. static: a private copy inside core.so.
OPENSSL ?= shared
# 1: without what other kernels and C libraries than Linux's and glibc's may lack, src/base/platform.h.
PORTABLE ?=
BUILD   ?= build$(if $(filter 1,$(PORTABLE)),/portable)
PREFIX  ?= /usr/local
LUADIR  ?= $(PREFIX)/share/lua/5.1
LIBDIR  ?= $(PREFIX)/lib/lua/5.1
LUA     ?= luajit
CFLAGS  ?= -O2 -g
# What `make test` runs: SPEC=spec/foo_spec.lua, SPEC='--filter=cookie'.
SPEC    ?=
# So many files of specs at a time, each in a process of its own, which SPEC has to name; 1: all in one. For the whole suite
# as many as there are cores.
JOBS    ?= $(if $(SPEC),1,$(shell nproc))

# Every variant has a folder of its own, so that they coexist: build, build/static, build/asan.
OUT     := $(BUILD)$(if $(filter static,$(OPENSSL)),/static)$(if $(SANITIZE),/asan)
CORE    := $(OUT)/dtls/core.so
SOURCES := $(wildcard src/*/*.c)
OBJECTS := $(SOURCES:src/%.c=$(OUT)/obj/%.o)
IMPORTS := $(OUT)/obj/imports.c
MODULES := $(wildcard lua/dtls/*.lua)
LUVIT   := $(OUT)/luvit/dtls

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all luvit hosts env install uninstall clean setup demo test bench bench-peers bench-tunnel instructions ready busted format \
        lint symbols install-check rock memcheck memcheck-core asan coverage uncovered matrix crossed portability soak \
        flood deep help

# ── How the core is built ─────────────────────────────────────────────────────────────────────────────────────
# `X = $(eval X := $(shell …))$(X)` runs the command at the first use of X, and only then. LuaRocks gives LUA_INCDIR.

LUA_CFLAGS = $(eval LUA_CFLAGS := $(shell pkg-config --cflags luajit $(if $(LUA_INCDIR),|| echo -I$(LUA_INCDIR))))$(LUA_CFLAGS)
SSL_CFLAGS = $(eval SSL_CFLAGS := $(shell pkg-config --cflags libssl libcrypto))$(SSL_CFLAGS)
SSL_LIBS   = $(eval SSL_LIBS := $(shell pkg-config $(if $(filter static,$(OPENSSL)),--static) --libs libssl libcrypto))$(SSL_LIBS)

# Not every compiler has these for every machine. -fno-plt: a handshake calls libssl and libcrypto so often that the stubs between
# would take a fifth of the cache lines that its code needs.
PROBED = $(eval PROBED := $(shell for flag in -fstack-protector-strong -fstack-clash-protection -fcf-protection -fno-plt; do \
  $(CC) -Werror $$flag -S -x c -o /dev/null /dev/null 2>/dev/null && echo $$flag; done))$(PROBED)

# Distributions may preset _FORTIFY_SOURCE, and the sanitizers replace what it wraps.
FORTIFY = -U_FORTIFY_SOURCE $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2)
SANITIZERS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer

COMPILE = $(CC) -std=c11 -D_GNU_SOURCE -Isrc -fPIC -fvisibility=hidden -Wall -Wextra -Wshadow -Wconversion -Wundef \
  $(if $(filter 1,$(PORTABLE)),-DDTLS_PORTABLE) \
  $(if $(WERROR),-Werror) $(PROBED) $(FORTIFY) $(if $(SANITIZE),$(SANITIZERS)) \
  $(LUA_CFLAGS) $(SSL_CFLAGS) $(CPPFLAGS) $(CFLAGS)

# nodelete: libcrypto keeps pointers to our callbacks until the process ends, a Lua state that closes must not unmap
# them. Lua's own symbols come from the executable, as for every Lua module, hence no -z defs.
LINK = $(CC) -shared -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,-z,nodelete $(if $(SANITIZE),$(SANITIZERS)) \
  $(CFLAGS) $(LDFLAGS)

# The private copy binds to itself and shows nothing: a host's OpenSSL (luvi exports its own) and ours never meet.
# Static is OpenSSL with what it may need itself (zlib, zstd), the C library's parts are not.
STATIC_LIBS = -Wl,-Bsymbolic -Wl,--exclude-libs,ALL \
  -Wl,-Bstatic $(filter-out -ldl -pthread,$(SSL_LIBS)) -Wl,-Bdynamic $(filter -ldl -pthread,$(SSL_LIBS))
LIBS = $(if $(filter static,$(OPENSSL)),$(STATIC_LIBS),$(SSL_LIBS))

all: $(CORE) ## the core for LuaJIT; OPENSSL=static puts OpenSSL inside (build/static), WERROR=1 for developers
	@:

$(CORE): $(OBJECTS) $(IMPORTS:.c=.o)
	@mkdir -p $(@D)
	$(LINK) -o $@ $^ $(LIBS) -ldl

# dtls_imports of src/base/linkage.h: what the core imports of OpenSSL, and what libssl does besides, with its version. A static
# build imports none. OpenSSL's public functions begin with a capital (SSL_, DTLSv1_, X509_) or look like d2i_ and i2a_, as
# nothing does that comes from libc and Lua.
PUBLIC = sed -nE 's/^ +[Uvw] (([A-Z]|[a-z]2[a-z])[A-Za-z0-9_]*(@.*)?)$$/\1/p' | LC_ALL=C sort -u
CORE_IMPORTS = nm -u $(OBJECTS) | $(PUBLIC)
LIBSSL_IMPORTS = nm -D -u "$$($(CC) -print-file-name=libssl.so)" 2>/dev/null | $(PUBLIC)

$(IMPORTS): $(OBJECTS)
	@{ echo '#include "base/linkage.h"'; \
	  $(if $(filter static,$(OPENSSL)),,$(CORE_IMPORTS) | sed 's/.*/extern const char &[];/';) \
	  echo 'const dtls_import dtls_imports[] = {'; \
	  $(if $(filter static,$(OPENSSL)),,$(CORE_IMPORTS) | sed 's/.*/{"&", "", &},/'; \
	  $(LIBSSL_IMPORTS) | sed -E 's/([^@]*)@*(.*)/{"\1", "\2", NULL},/';) \
	  echo '{NULL, NULL, NULL}};'; } >$@

# Without link-time optimization, which would compare these declarations with OpenSSL's.
$(OUT)/obj/imports.o: $(IMPORTS)
	$(COMPILE) -fno-lto -c -o $@ $<

$(OUT)/obj/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	$(COMPILE) -MMD -MP -c -o $@ $<

-include $(OBJECTS:.o=.d)

# The core is in a folder of its platform (Linux-x64): those of several platforms can stand side by side.
PLATFORM = $(eval PLATFORM := $(shell $(CC) $(CPPFLAGS) $(CFLAGS) -E -P luvit/platform.h | tr -d ' \n'))$(PLATFORM)

# luvit's require resolves '../x' beside the file's folder, and does not turn dots into folders. './x' would do there; lit's
# luvit-loader keeps modules by that text, and the application's own './client' would be taken for ours.
luvit: $(MODULES:lua/dtls/%=$(LUVIT)/%) $(LUVIT)/core.lua $(LUVIT)/package.lua $(CORE) ## the folder to drop into an application's deps/ or libs/
	@install -D $(CORE) $(LUVIT)/$(PLATFORM)/core.so

$(LUVIT)/%.lua: lua/dtls/%.lua Makefile
	@mkdir -p $(@D)
	sed -E "s#(require *\(? *['\"])dtls\.#\1../dtls/#g" $< >$@

$(LUVIT)/core.lua: luvit/core.lua
	@mkdir -p $(@D)
	cp $< $@

# For lit, which packs and publishes what has one: LIT_OWNER is whose it is there.
LIT_OWNER ?= luvit
VERSION = $(shell sed -n 's/^\#define DTLS_VERSION "\(.*\)"/\1/p' src/binding/module.c)
$(LUVIT)/package.lua: luvit/package.lua src/binding/module.c Makefile
	@mkdir -p $(@D)
	sed -e 's#@OWNER@#$(LIT_OWNER)#' -e 's#@VERSION@#$(VERSION)#' $< >$@

# The programs that the specs load the module into; their file names them in HOSTS.
-include spec/host/host.mk
-include spec/faults/faults.mk
hosts: $(HOSTS)
	@:

# ── Use ───────────────────────────────────────────────────────────────────────────────────────────────────────

# Before what the caller has set, if anything; else ;; is Lua's default path, where luv is.
CHECKOUT = LUA_PATH='$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;'"$${LUA_PATH-;}" \
  LUA_CPATH='$(abspath $(OUT))/?.so;'"$${LUA_CPATH-;}"

env: ## for a shell: eval "$(make -s env)" lets luajit use the checkout
	@printf '%s\n' $(foreach path,$(CHECKOUT),'export $(subst ','\'',$(path))')

install: all ## into PREFIX (/usr/local), under DESTDIR
	install -d $(DESTDIR)$(LUADIR)/dtls $(DESTDIR)$(LIBDIR)/dtls
	install -m 644 $(MODULES) $(DESTDIR)$(LUADIR)/dtls
	install -m 644 $(CORE) $(DESTDIR)$(LIBDIR)/dtls

uninstall: ## removes what install with the same variables put there
	rm -f $(MODULES:lua/%=$(DESTDIR)$(LUADIR)/%) $(DESTDIR)$(LIBDIR)/dtls/core.so
	-rmdir $(sort $(DESTDIR)$(LUADIR)/dtls $(DESTDIR)$(LIBDIR)/dtls)

clean: ## removes everything that was built
	rm -rf $(BUILD)

setup: ## installs what it takes to build the module, either way, and to run it, on Debian and Ubuntu
	@.ci/setup demo static

demo: ## sets up, builds, runs examples/demo.lua
	@.ci/setup demo
	@$(MAKE) all
	@$(CHECKOUT) $(LUA) examples/demo.lua

BENCH = $(BUILD)/bench
BENCH_PROGRAMS = $(BENCH)/load $(BENCH)/hello $(BENCH)/reference
BENCH_CC = $(CC) -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra $(if $(WERROR),-Werror) $(SSL_CFLAGS) -o $@ $(filter %.c,$^)
$(BENCH)/load: bench/load/load.c bench/load/batch.c bench/load/batch.h
$(BENCH)/hello: bench/load/hello.c
$(BENCH)/reference: bench/peers/reference.c
$(BENCH_PROGRAMS): Makefile
	@mkdir -p $(@D)
	$(BENCH_CC) $(SSL_LIBS)
$(BENCH)/repeatable.so: bench/repeatable.c Makefile
	@mkdir -p $(@D)
	$(BENCH_CC) -shared -fPIC -fno-builtin -ldl

# Debian's Go libraries are a GOPATH.
PION = /usr/share/gocode/src/github.com/pion/dtls/v2
$(BENCH)/pion: bench/peers/pion.go Makefile
	@mkdir -p $(@D)
	GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$(abspath $(BENCH))/go go build -o $@ $<

# Without a network, what is not there is left out.
BENCH_PION = $(if $(filter others,$(or $(TABLES),others)),$(shell test -d $(PION) && command -v go >/dev/null && echo $(BENCH)/pion))
bench: ## servers side by side on this machine, into the documents (TABLES='echo hello': some, only shown; KEEP=1: all, only shown)
	@.ci/setup demo
	@$(if $(TABLES),,.ci/setup plot || true)
	@$(MAKE) all $(BENCH_PROGRAMS) $(BENCH_PION)
	@PROGRAMS='$(BENCH)' DTLS_BUILD=$(BUILD) BENCH_KEEP='$(KEEP)' $(CHECKOUT) $(LUA) bench/run.lua $(TABLES)

bench-peers: ## installs Pion and werift, which `make bench` then measures, too
	@.ci/setup peers
	@$(MAKE) $(BENCH)/pion $(PEER_OUT)/node_modules

instructions: ## instructions of the hot paths, counted by callgrind; fails at 3 % more than recorded (RECORD=1 records them)
	@.ci/setup demo memcheck
	@$(MAKE) -s all $(BENCH)/repeatable.so
	@PROGRAMS='$(BENCH)' $(CHECKOUT) $(LUA) bench/instructions.lua $(if $(RECORD),record)

bench-tunnel: ## examples/tunnel.lua beside socat's DTLS, measured by iperf3
	@.ci/setup demo tunnel
	@$(MAKE) all
	@$(CHECKOUT) $(LUA) bench/tunnel.lua

soak: MINUTES ?= 10
soak: ready ## two servers and hundreds of clients over a bad network for MINUTES; what they used must come back
	@$(CHECKOUT) $(LUA) spec/soak/soak.lua $(MINUTES)

# ── Tests ─────────────────────────────────────────────────────────────────────────────────────────────────────

RUNNER = $(UNDER) $(LUA) "$$(command -v busted)" --ignore-lua
BUSTED = DTLS_BUILD=$(BUILD) $(CHECKOUT) \
  $(if $(filter 1,$(JOBS)),$(RUNNER) $(SPEC),spec/support/shards.sh $(JOBS) '$(or $(SPEC),spec)' $(RUNNER))

ready:
	@.ci/setup test
	@$(MAKE) OPENSSL=shared all luvit hosts
	@$(MAKE) OPENSSL=static all luvit

busted:
	@$(BUSTED)

test: ready ## sets up, builds everything, runs the specs (SPEC=spec/foo_spec.lua runs one)
	@$(BUSTED)

# memcheck, asan and coverage slow the suite down: SPEC_PATIENCE is what the specs multiply their deadlines by,
# SPEC_SCALE what they multiply counts of hundreds by.
memcheck: export SPEC_PATIENCE = 10
memcheck: export SPEC_SCALE = 0.05
memcheck: export SPEC_UNDER = $(UNDER)
# valgrind translates all machine code anew: what LuaJIT compiles costs more there than it saves.
memcheck: export LUA_INIT = jit.off()
MEMCHECK = $(abspath $(BUILD))/memcheck
memcheck: export VALGRIND_OPTS = --quiet --vgdb=no --error-exitcode=99 --leak-check=full --show-leak-kinds=definite \
  --errors-for-leak-kinds=definite --num-callers=30 --suppressions=$(CURDIR)/spec/valgrind.supp --log-file=$(MEMCHECK)/%p
memcheck: UNDER = valgrind
# The waits of so patient specs leave room for others.
memcheck: JOBS = $(if $(SPEC),1,$(shell expr 2 '*' $$(nproc)))
memcheck: ready ## the specs under valgrind; fails at anything that valgrind says, STRICT=1 also at specs that it makes too slow
	@rm -rf $(MEMCHECK); mkdir -p $(MEMCHECK)
	@.ci/setup memcheck
	@$(BUSTED) $(if $(STRICT),,|| echo 'Not all passed at this speed.')
	@find $(MEMCHECK) -type f -size +0 -exec tail -n +1 -v {} + | tee $(MEMCHECK).log; ! [ -s $(MEMCHECK).log ]

# The specs that make, use and end every kind of object that the core owns, and few of anything else.
MEMCHECK_CORE = core hello certificate extension udp faults/forged faults/behind_keys
memcheck-core: ## memcheck of the specs of what owns memory
	@$(MAKE) memcheck SPEC='$(MEMCHECK_CORE:%=spec/%_spec.lua)' JOBS=3

# luajit itself is not built with the sanitizers, so they must be loaded before it. They cannot be found by name alone.
asan: export SPEC_PATIENCE = 4
asan: OUT = $(BUILD)/asan
asan: UNDER = env LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
  LSAN_OPTIONS=suppressions=$(CURDIR)/spec/lsan.supp:print_suppressions=0 UBSAN_OPTIONS=print_stacktrace=1
asan: ready ## the specs with the core built by gcc's address and undefined behaviour sanitizers
	@$(MAKE) SANITIZE=1 OPENSSL=shared CC=gcc all
	@$(BUSTED)

# A build of its own, with all that the specs load, so that no line is missed that ran in another variant.
COVERAGE = $(BUILD)/coverage
coverage: export SPEC_PATIENCE = 8
coverage: UNDER = env LUA_INIT=@$(CURDIR)/spec/support/coverage.lua SPEC_COVERAGE=$(abspath $(COVERAGE))/lua.lines
coverage: ## how much of the C and of the Lua the specs run; fails below 90 %
	@$(MAKE) BUILD=$(COVERAGE) CC=gcc CFLAGS='-O0 -g --coverage -fprofile-update=atomic' FORTIFY= ready
	@find $(COVERAGE) -name '*.gcda' -delete; rm -f $(COVERAGE)/lua.lines
	@umask 0 && $(MAKE) BUILD=$(COVERAGE) UNDER='$(UNDER)' busted # a test that gives up root writes its counts, too
	@$(LUA) spec/support/coverage.lua $(COVERAGE)

uncovered: ## the same of the last `make coverage`, with every line that did not run
	@$(LUA) spec/support/coverage.lua $(COVERAGE) lines

flood: export FLOOD_HELLOS = 1000000
flood: export SPEC_PATIENCE = 10
flood: JOBS = 1
flood: SPEC = spec/faults/flood_spec.lua --filter='without a cookie'
flood: ready ## a million hellos from forged addresses, for each strategy
	@$(BUSTED)

SUITES ?= trixie sid experimental
matrix: ## the specs in other releases of Debian: SUITES='bookworm-old trixie sid experimental'. Needs root
	@BUILD='$(BUILD)' SPEC='$(SPEC)' .ci/matrix $(SUITES)

# OpenSSL keeps its ABI from 3.0 on: a release that is upgraded, or a host that exports its own, runs what is built here.
crossed: all ## the specs in other releases with the core that was built in this one. Needs root
	@BUILD='$(BUILD)' SPEC='$(SPEC)' CORE='$(abspath $(CORE))' .ci/matrix trixie sid

# What another system has. The specs that are run where something is emulated, or is not all there.
PORTABILITY_CORE = $(foreach name,core hello name certificate extension connection psk server,spec/$(name)_spec.lua)
portability: ## the specs with PORTABLE=1, with musl, on 32-bit x86 and ARM; the core compiled for macOS. Needs root
	@$(MAKE) PORTABLE=1 BUILD=$(BUILD)/portable test
	@BUILD='$(BUILD)' .ci/musl $(PORTABILITY_CORE)
	@BUILD='$(BUILD)' .ci/darwin
	@BUILD='$(BUILD)' .ci/matrix bookworm-i386
	@BUILD='$(BUILD)' SPEC='$(PORTABILITY_CORE)' SPEC_PATIENCE=20 .ci/matrix bookworm-armhf

deep: ## all that is too dear for each change: coverage, valgrind, floods, bad network, fuzzing, every release, other implementations. Needs root
	@.ci/deep

-include spec/fuzz/fuzz.mk
-include spec/interop/peers/peers.mk
-include doc/docs.mk
-include rockspec/packages.mk

# .clang-tidy says what is looked for. One file at a time: what it says of one depends on those before it.
# cppcheck reads no foreign headers; what it would have needed of them follows -D. Its readdirCalled asks for readdir_r, which is
# obsolete: readdir on a stream of one's own is as safe. clang-tidy's stderr only counts what
# it found in such headers.
C_FILES = $(SOURCES) $(wildcard spec/*/*.c bench/*.c bench/*/*.c)
FORMATTED = $(wildcard src/*/*.[ch] spec/*/*.[ch] bench/*.c bench/*/*.[ch])
format: ## clang-format, as .clang-format says
	@.ci/setup lint
	clang-format -i $(FORMATTED)

lint: ## luacheck, clang-format, clang-tidy, cppcheck, shellcheck
	@.ci/setup build lint
	clang-format --dry-run -Werror $(FORMATTED)
	luacheck --quiet --no-color lua luvit spec bench examples doc .busted .luacheckrc rockspec
	shellcheck -x .ci/run .ci/deep .ci/setup .ci/matrix .ci/musl .ci/darwin .ci/packages rockspec/debian/tests/echo \
	  spec/support/shards.sh spec/support/progress.sh
	cppcheck --quiet --std=c11 --library=posix --enable=warning,performance,portability,style --inconclusive \
	  --error-exitcode=1 --suppress=missingIncludeSystem --suppress=readdirCalled -Isrc \
	  -DOPENSSL_VERSION_NUMBER=0x30500000L '-DElfW(type)=Elf64_##type' $(C_FILES)
	@printf '%s\n' $(C_FILES) | xargs -P 2 -I '{}' clang-tidy --quiet '{}' -- -std=c11 -D_GNU_SOURCE -Isrc \
	  $(LUA_CFLAGS) $(SSL_CFLAGS) 2>/dev/null

symbols: ## both builds export their two entry points, the static one needs no OpenSSL
	@.ci/setup static
	@$(MAKE) OPENSSL=shared all
	@$(MAKE) OPENSSL=static all
	@for core in $(BUILD)/dtls/core.so $(BUILD)/static/dtls/core.so; do \
	  found=$$(nm -D --defined-only $$core | awk '{ print $$3 }' | LC_ALL=C sort | xargs); echo "$$core: $$found"; \
	  [ "$$found" = 'luaopen_core luaopen_dtls_core' ] || exit 1; done
	@! nm -D --undefined-only $(BUILD)/static/dtls/core.so | grep -E ' (SSL|BIO|EVP|CRYPTO|OPENSSL)_'

# $(call loads,<Lua folder>,<C folder>): does Lua, started somewhere else, find the module there and nowhere else?
loads = cd / && LUA_PATH='$(1)/?.lua;$(1)/?/init.lua;;' LUA_CPATH='$(2)/?.so;;' $(LUA) -e " \
  local dtls, core = require 'dtls', package.searchpath('dtls.core', package.cpath) \
  assert(core:find('$(2)/', 1, true) == 1, core) \
  print('dtls ' .. dtls.VERSION .. ' from ' .. core)"

install-check: STAGE = $(abspath $(BUILD))/stage
install-check: ## installs, loads, uninstalls
	@.ci/setup demo
	@rm -rf $(STAGE)
	@$(MAKE) DESTDIR=$(STAGE) install
	$(call loads,$(STAGE)$(LUADIR),$(STAGE)$(LIBDIR))
	@$(MAKE) DESTDIR=$(STAGE) uninstall
	@! find $(STAGE) -name 'dtls*' | grep .

rock: TREE = $(abspath $(BUILD))/rock
rock: ## builds and installs the rock into a tree of its own, and loads it from there
	@.ci/setup demo rock
	@rm -rf $(TREE)
	BUILD=$(BUILD)/rock/build luarocks --lua-version=5.1 make --deps-mode=none --tree=$(TREE) \
	  rockspec/luvit-dtls-scm-0.rockspec
	$(call loads,$(TREE)/share/lua/5.1,$(TREE)/lib/lua/5.1)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile doc/docs.mk rockspec/packages.mk spec/fuzz/fuzz.mk spec/interop/peers/peers.mk
