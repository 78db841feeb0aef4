# The other ends of spec/interop/peers_spec.lua, built into $(BUILD)/peers. `make peers` installs what they and
# spec/interop/applications_spec.lua need and runs the two; in `make test` they skip what is not there.

PEER_DIR := spec/interop/peers
PEER_OUT = $(BUILD)/peers
PEER_PROGRAMS = $(addprefix $(PEER_OUT)/,mbedtls wolfssl pion node_modules)
PEER_COMPILE = $(CC) -std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wshadow -Wconversion -o $@ $<
# The README names these versions.
PEER_NPM = node-dtls-client@2.0.3 werift@0.25.2

.PHONY: peers
peers: SPEC = spec/interop/peers_spec.lua spec/interop/applications_spec.lua
peers: ready ## the specs with Mbed TLS, wolfSSL, Pion, libcoap, coturn, node-dtls-client and werift
	@.ci/setup peers
	@$(MAKE) $(PEER_PROGRAMS)
	@$(BUSTED)

$(PEER_OUT)/mbedtls: $(PEER_DIR)/mbedtls.c $(PEER_DIR)/peer.h
	@mkdir -p $(@D)
	$(PEER_COMPILE) -lmbedtls -lmbedx509 -lmbedcrypto

$(PEER_OUT)/wolfssl: $(PEER_DIR)/wolfssl.c $(PEER_DIR)/peer.h
	@mkdir -p $(@D)
	$(PEER_COMPILE) -lwolfssl

# Debian's Go libraries are a GOPATH.
$(PEER_OUT)/pion: $(PEER_DIR)/pion.go
	@mkdir -p $(@D)
	GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$(abspath $(PEER_OUT))/go go build -o $@ $<

$(PEER_OUT)/node_modules: $(PEER_DIR)/peers.mk
	@mkdir -p $(@D)
	npm install --silent --no-audit --no-fund --prefix $(PEER_OUT) $(PEER_NPM)
	@touch $@
