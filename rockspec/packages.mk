# What is released: `make dist`, and what `make deb` makes of it.

RELEASE = luvit-dtls-$(VERSION)
DIST    = $(BUILD)/dist
# Where a release can be fetched: the rockspec says it.
DIST_URL ?= https://github.com/luvit/luvit-dtls/releases/download/v$(VERSION)

.PHONY: dist

# The times in the tarball are that of the commit: one commit, one tarball.
dist: ## of the last commit: a tarball, and the rockspec that installs from it, in build/dist
	@.ci/setup dist
	@rm -rf $(DIST); mkdir -p $(DIST)
	@git diff --quiet HEAD || echo 'What is not committed is left out.'
	git -c tar.umask=0022 archive --prefix=$(RELEASE)/ HEAD | gzip -9n >$(DIST)/$(RELEASE).tar.gz
	sed -e "s|^version = .*|version = '$(VERSION)-1'|" -e "s|^source = .*|source = {\n  url = '$(DIST_URL)/$(RELEASE).tar.gz',\n\
	  dir = '$(RELEASE)',\n  md5 = '$$(md5sum <$(DIST)/$(RELEASE).tar.gz | cut -d ' ' -f 1)',\n}|" \
	  rockspec/luvit-dtls-scm-0.rockspec >$(DIST)/$(RELEASE)-1.rockspec
	@cd $(DIST) && sha256sum $(RELEASE)* >SHA256SUMS
