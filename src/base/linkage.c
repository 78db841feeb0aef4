/*
 * Which OpenSSL this module runs on, and whether it is one usable copy. A program may export an OpenSSL of its own (luvi does),
 * all of it or a part, and a preloaded library may override functions of it: then two copies would run mixed. At build time the
 * names are listed that the core and libssl import (dtls_imports); at load the dynamic linker is asked who gives each of them.
 */
#include "base/linkage.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/openssl.h"

/* Who may give a function. Usable are PROGRAM alone, or one SSL with one CRYPTO; without imports the module is its own. */
enum { FROM_PROGRAM, FROM_SSL, FROM_CRYPTO, FROM_OTHER, FROM_COUNT };

/* An object that gives OpenSSL's functions, and one of them, for the message. */
typedef struct {
  const char *symbol; /* NULL: there is no such object */
  const char *file;
  uintptr_t base;
} source;

typedef struct {
  source from[FROM_COUNT];
  source second; /* another object of a kind that there is already: two libssl, two libcrypto */
  int second_part;
} census;

/* A loaded object, as dl_iterate_phdr shows it: the executable comes first. */
typedef struct {
  uintptr_t address; /* that it holds */
  bool later;
  bool program;
  const char *file;
  uintptr_t base;
} object;

static int holds(struct dl_phdr_info *info, size_t size, void *data) {
  object *o = data;
  bool first = !o->later;
  (void)size;
  o->later = true;
  for (size_t i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    if (segment->p_type != PT_LOAD || o->address - (info->dlpi_addr + segment->p_vaddr) >= segment->p_memsz) continue;
    o->program = first;
    o->file = first ? "the executable" : info->dlpi_name;
    o->base = info->dlpi_addr;
    return 1;
  }
  return 0;
}

static int part_of(const object *o) {
  const char *slash = strrchr(o->file, '/'), *file = slash ? slash + 1 : o->file;
  if (o->program) return FROM_PROGRAM;
  if (strncmp(file, "libssl.so", strlen("libssl.so")) == 0) return FROM_SSL;
  return strncmp(file, "libcrypto.so", strlen("libcrypto.so")) == 0 ? FROM_CRYPTO : FROM_OTHER;
}

/* A position-dependent program that links libssl lends its own jump table as the address of a function, and defines none. */
static bool is_stub(uintptr_t address) {
  Dl_info info;
  const ElfW(Sym) *symbol = NULL;
  return dladdr1((const void *)address, &info, (void **)(uintptr_t)&symbol, RTLD_DL_SYMENT) != 0 && symbol &&
         symbol->st_shndx == SHN_UNDEF;
}

/* Adds who gives these functions. */
static void count(census *c, const char *const *names) {
  for (const char *const *name = names; *name; name++) {
    object o = {.address = (uintptr_t)dlsym(RTLD_DEFAULT, *name)};
    if (o.address == 0 || dl_iterate_phdr(holds, &o) == 0) continue;
    int part = part_of(&o);
    source *taken = &c->from[part], found = {.symbol = *name, .file = o.file, .base = o.base};
    if (!taken->symbol) {
      if (!o.program || !is_stub(o.address)) *taken = found;
    } else if (!c->second.symbol && taken->base != found.base) {
      c->second = found;
      c->second_part = part;
    }
  }
}

/* Who overrides a function of libcrypto does so for libssl, too. A host that gives all of OpenSSL itself uses no libssl. */
static void take_census(census *c) {
  *c = (census){0};
  count(c, dtls_imports);
  if (c->from[FROM_SSL].symbol) count(c, dtls_libssl_imports);
}

/* ── the verdict ── */

static const char *refuse_mixed(const source *a, const source *b, char *buf, size_t size) {
  snprintf(buf, size,
           "two copies of OpenSSL would run mixed, as %s comes from %s and %s from %s: "
           "build the module with a copy of its own, make OPENSSL=static",
           a->symbol, a->file, b->symbol, b->file);
  return buf;
}

static const char *check_sources(const census *c, char *buf, size_t size) {
  const source *from = c->from, *other = &from[FROM_OTHER];
  for (int a = 0; a < FROM_COUNT; a++)
    for (int b = a + 1; b < FROM_COUNT; b++)
      if (from[a].symbol && from[b].symbol && !(a == FROM_SSL && b == FROM_CRYPTO))
        return refuse_mixed(&from[a], &from[b], buf, size);
  if (c->second.symbol) return refuse_mixed(&from[c->second_part], &c->second, buf, size);
  if (!other->symbol) return NULL;
  snprintf(buf, size,
           "OpenSSL comes from %s (%s), which is neither libssl nor libcrypto: "
           "run without it, or build the module with a copy of its own, make OPENSSL=static",
           other->file, other->symbol);
  return buf;
}

/* OpenSSL keeps its ABI within a major release; a minor release adds functions, a patch release does not. */
static bool version_fits(unsigned long built, unsigned long running) {
  return running >> 28 == built >> 28 && running >> 20 >= built >> 20;
}

static const char *check_version(const census *c, char *buf, size_t size) {
  bool host = c->from[FROM_PROGRAM].symbol != NULL;
  const char *file = host ? "the executable" : c->from[FROM_CRYPTO].symbol ? c->from[FROM_CRYPTO].file : "this module";
  if (version_fits(OPENSSL_VERSION_NUMBER, OpenSSL_version_num())) return NULL;
  snprintf(buf, size, "compiled against %s, the module cannot run on %s, which comes from %s: %s", OPENSSL_VERSION_TEXT,
           OpenSSL_version(OPENSSL_VERSION), file,
           host ? "build the module with a copy of its own, make OPENSSL=static"
                : "rebuild the module against the installed OpenSSL");
  return buf;
}

const char *dtls_linkage_name(void) {
  census c;
  take_census(&c);
  if (c.from[FROM_PROGRAM].symbol) return "host";
  return c.from[FROM_SSL].symbol || c.from[FROM_CRYPTO].symbol ? "shared" : "static";
}

const char *dtls_linkage_check(char *buf, size_t size) {
  census c;
  take_census(&c);
  const char *refusal = check_sources(&c, buf, size);
  return refusal ? refusal : check_version(&c, buf, size);
}
