# What is released (`make dist`), and what `make deb` makes of it by debian/ beside this file.

RELEASE = luvit-dtls-$(VERSION)
DIST    = $(BUILD)/dist
# Where a release can be fetched: the rockspec says it.
DIST_URL ?= https://github.com/luvit/luvit-dtls/releases/download/v$(VERSION)

.PHONY: dist deb packages

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

# Variables of this make are not for the one that builds the package.
DEB = $(BUILD)/deb
PLAIN = env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u BUILD -u CC -u LUA_PATH -u LUA_CPATH
MAINTAINER = $(or $(DEBFULLNAME),The luvit-dtls authors) <$(or $(DEBEMAIL),luvit-dtls@users.noreply.github.com)>
deb: dist ## Debian's package of that tarball, in build/deb, which lintian must accept; DEBFULLNAME and DEBEMAIL are its maintainer's
	@.ci/setup test deb
	@rm -rf $(DEB); mkdir -p $(DEB)
	@cp $(DIST)/$(RELEASE).tar.gz $(DEB)/lua-dtls_$(VERSION).orig.tar.gz
	tar -xzf $(DIST)/$(RELEASE).tar.gz -C $(DEB)
	cp -r $(DEB)/$(RELEASE)/rockspec/debian $(DEB)/$(RELEASE)/debian
	sed -i -e 's|@MAINTAINER@|$(MAINTAINER)|; s|@VERSION@|$(VERSION)|; s|@DATE@|$(shell git log -1 --format=%cD)|' \
	  $(DEB)/$(RELEASE)/debian/control $(DEB)/$(RELEASE)/debian/changelog
	cd $(DEB)/$(RELEASE) && $(PLAIN) dpkg-buildpackage --no-sign
	lintian --info --fail-on error,warning $(DEB)/lua-dtls_*.changes

packages: deb ## tries both in a new root: installs, uses and removes the package and the rock, follows the README. Needs root
	@BUILD='$(BUILD)' .ci/packages $(VERSION)
