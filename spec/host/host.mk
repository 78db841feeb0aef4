# Stand-ins for luvi, to test the module in, all built into $(BUILD)/host: HOSTS names them. Needs the static libraries
# of LuaJIT, luv, libuv and OpenSSL.
#
#   luvi          exports the whole of OpenSSL
#   luvi-partial  exports a small part of libcrypto
#   luvi-old      is like luvi 2.14: exports an OpenSSL of another major release, has `uv` and no `luv`
#   luvi-nostdio  is like luvi 2.15: exports an OpenSSL that reads no file, and has no function for it
#   luvi-linked   links the system's OpenSSL, and is position-dependent: its jump table stands for SSL_new
#
# and what else the tests of src/base/linkage.c load:
#
#   preload.so, libssl.so.0   the same library under two names, overrides one function of libcrypto
#   libcrypto.so.1.1          an OpenSSL whose functions have other versions, beside ours
#   linkage_unit.so           the version rule by itself
#
#   no_recvmmsg.so            a system without recvmmsg
#   icmp_errors.so            a network that reports an error at every second read
#   elsewhere.so              another machine's certificates

HOST_DIR := spec/host
HOST_OUT = $(BUILD)/host
HOSTS = $(addprefix $(HOST_OUT)/,luvi luvi-partial luvi-old luvi-nostdio luvi-linked preload.so libssl.so.0 libcrypto.so.1.1 \
  linkage_unit.so no_recvmmsg.so icmp_errors.so elsewhere.so)

# Everything that asks a tool does so in a recipe. The compiler answers with a path for an archive that it finds, else
# with the bare name.
host_archive = $(firstword $(foreach name,$(1),$(filter /%,$(shell $(CC) -print-file-name=$(name)))))
HOST_LUAJIT = $(eval HOST_LUAJIT := $(call host_archive,libluajit-5.1.a))$(HOST_LUAJIT)
HOST_LUV = $(eval HOST_LUV := $(call host_archive,liblua5.1-luv.a))$(HOST_LUV)
HOST_UV = $(eval HOST_UV := $(call host_archive,libuv_a.a libuv.a))$(HOST_UV)
HOST_SSL = $(eval HOST_SSL := $(call host_archive,libssl.a))$(HOST_SSL)
HOST_CRYPTO = $(eval HOST_CRYPTO := $(call host_archive,libcrypto.a))$(HOST_CRYPTO)
HOST_MISSING = $(strip $(if $(HOST_LUAJIT),,libluajit-5.1.a) $(if $(HOST_LUV),,liblua5.1-luv.a) \
  $(if $(HOST_UV),,libuv_a.a) $(if $(HOST_SSL),,libssl.a) $(if $(HOST_CRYPTO),,libcrypto.a))

HOST_INCLUDES = $(eval HOST_INCLUDES := $(shell pkg-config --cflags luajit libssl))$(HOST_INCLUDES)
# What the static OpenSSL needs in its turn: zlib and zstd on some systems.
HOST_PRIVATE = $(eval HOST_PRIVATE := $(filter-out -lssl -lcrypto,\
  $(shell pkg-config --static --libs libssl)))$(HOST_PRIVATE)

HOST_COMPILE = $(CC) -std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wshadow -Wconversion $(HOST_INCLUDES)
HOST_PROGRAM = $(HOST_COMPILE) -rdynamic -o $@ $(filter %.c,$^) $(HOST_LUV) $(HOST_UV) $(HOST_LUAJIT)
HOST_LIBRARY = $(HOST_COMPILE) -fPIC -shared -o $@ $<
HOST_LIBS = $(HOST_PRIVATE) -lpthread -ldl -lrt -lm
HOST_OPENSSL = $(HOST_SSL) $(HOST_CRYPTO)
HOST_OPENSSL_WHOLE = -Wl,--whole-archive $(HOST_OPENSSL) -Wl,--no-whole-archive

define host_check
@test -z '$(HOST_MISSING)' || { echo 'the test hosts need $(HOST_MISSING), not installed here' >&2; exit 1; }
@mkdir -p $(@D)
endef

$(HOST_OUT)/luvi: $(HOST_DIR)/host.c
	$(host_check)
	$(HOST_PROGRAM) $(HOST_OPENSSL_WHOLE) $(HOST_LIBS)

$(HOST_OUT)/luvi-partial: $(HOST_DIR)/host.c $(HOST_DIR)/openssl_partial.c
	$(host_check)
	$(HOST_PROGRAM) $(HOST_OPENSSL) $(HOST_LIBS)

$(HOST_OUT)/luvi-linked: $(HOST_DIR)/host.c $(HOST_DIR)/openssl_linked.c
	$(host_check)
	$(HOST_PROGRAM) -fno-pie -no-pie -lssl -lcrypto $(HOST_LIBS)

# Of two definitions the first one wins, which is that of openssl_old.c or openssl_nostdio.c.
$(HOST_OUT)/luvi-old: HOST_COMPILE += -DHOST_UV_ALONE
$(HOST_OUT)/luvi-nostdio: $(HOST_DIR)/no_pem.map
$(HOST_OUT)/luvi-nostdio: HOST_COMPILE += -Wl,--version-script=$(HOST_DIR)/no_pem.map
$(HOST_OUT)/luvi-old $(HOST_OUT)/luvi-nostdio: $(HOST_OUT)/luvi-%: $(HOST_DIR)/host.c $(HOST_DIR)/openssl_%.c
	$(host_check)
	$(HOST_PROGRAM) -Wl,--allow-multiple-definition $(HOST_OPENSSL_WHOLE) $(HOST_LIBS)

$(HOST_OUT)/preload.so $(HOST_OUT)/libssl.so.0: $(HOST_DIR)/preload.c
	@mkdir -p $(@D)
	$(HOST_LIBRARY)

$(HOST_OUT)/libcrypto.so.1.1: $(HOST_DIR)/openssl_beside.c $(HOST_DIR)/openssl_beside.map
	@mkdir -p $(@D)
	$(HOST_LIBRARY) -Wl,--version-script=$(HOST_DIR)/openssl_beside.map

$(addprefix $(HOST_OUT)/,no_recvmmsg.so icmp_errors.so elsewhere.so): $(HOST_OUT)/%.so: $(HOST_DIR)/%.c
	@mkdir -p $(@D)
	$(HOST_LIBRARY)

$(HOST_OUT)/linkage_unit.so: $(HOST_DIR)/linkage_unit.c src/base/linkage.c src/base/linkage.h src/base/openssl.h
	@mkdir -p $(@D)
	$(HOST_LIBRARY) -Isrc -Wl,-z,now -lssl -lcrypto
