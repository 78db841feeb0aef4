# What is made of the documents: `make docs` (HTML and a manual page, into $(BUILD)/docs, never committed) and `make pictures`,
# whose results are committed, because hosts of repositories show them beside the text and draw nothing.

DOCS     = $(BUILD)/docs
PAGES    = README.md CONTRIBUTING.md CHANGELOG.md examples/README.md $(wildcard doc/*.md)
HTML     = $(PAGES:%.md=$(DOCS)/%.html)
MANUAL   = $(DOCS)/dtlscat.1
PICTURES = $(patsubst %.gv,%.svg,$(wildcard doc/pictures/*.gv))
# What the pages lead to besides each other.
LEADS_TO = LICENSE SECURITY-CONSIDERATIONS.txt $(wildcard doc/pictures/*.svg examples/*.lua)

.PHONY: docs pictures install-dtlscat

docs: ## the documents in HTML, and the manual page dtlscat(1), in build/docs
	@.ci/setup docs
	@$(MAKE) $(HTML) $(MANUAL)
	@cp --parents $(LEADS_TO) $(DOCS)

$(DOCS)/%.html: %.md doc/html.lua doc/docs.mk
	@mkdir -p $(@D)
	pandoc --standalone --from=gfm --to=html5 --lua-filter=doc/html.lua --metadata=pagetitle='$* – luvit-dtls' -o $@ $<

# The heading becomes the title.
$(MANUAL): doc/dtlscat.md doc/docs.mk src/binding/module.c
	@mkdir -p $(@D)
	pandoc --standalone --from=gfm --to=man --shift-heading-level-by=-1 --lua-filter=doc/man.lua --metadata=title=DTLSCAT \
	  --metadata=section=1 --metadata=footer='luvit-dtls $(VERSION)' --metadata=header='User Commands' -o $@ $<

pictures: ## draws the pictures of the documents anew, from their texts (graphviz)
	@.ci/setup docs
	@$(MAKE) -B $(PICTURES)

doc/pictures/%.svg: doc/pictures/%.gv
	dot -Tsvg -o $@ $<

BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
install-dtlscat: docs ## the program dtlscat and its manual page into PREFIX, under DESTDIR; the module is a matter of `make install`
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1
	{ echo '#!/usr/bin/env luajit'; cat examples/dtlscat.lua; } >$(DESTDIR)$(BINDIR)/dtlscat
	chmod 755 $(DESTDIR)$(BINDIR)/dtlscat
	install -m 644 $(MANUAL) $(DESTDIR)$(MANDIR)/man1
