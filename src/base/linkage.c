/*
 * Which OpenSSL this module runs on, and whether it is one usable copy. A program may export an OpenSSL of its own (luvi does),
 * all of it or a part, and a preloaded library may override functions of it: then two copies would run mixed. The build lists the
 * functions that the core and libssl import (linkage.h); here each address is traced to the loaded object that holds it.
 */
#include "base/linkage.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/openssl.h"
#include "base/platform.h"

#if DTLS_HAS_PROGRAM_HEADERS
#include <link.h>
#endif

/* Who may provide a function. Usable are PROGRAM alone, or one SSL with one CRYPTO; a static build has no provider. */
enum { FROM_PROGRAM, FROM_SSL, FROM_CRYPTO, FROM_OTHER, FROM_COUNT };

/* A loaded object that provides functions of OpenSSL, and one of them, for the message. */
typedef struct {
  const char *symbol; /* NULL: there is no such object */
  const char *file;
  uintptr_t base;
} provider;

typedef struct {
  provider from[FROM_COUNT]; /* OTHER has a second libssl or libcrypto, too */
} census;

/* A loaded object. */
typedef struct {
  const char *file;
  uintptr_t base;
  bool is_program;
} object;

/* ── which object an address is in ── */

#if DTLS_HAS_SYMBOL_VERSIONS
static const void *address_of(const dtls_import *i) {
  if (i->address) return i->address;
  return i->version[0] ? dlvsym(RTLD_DEFAULT, i->symbol, i->version) : dlsym(RTLD_DEFAULT, i->symbol);
}

/* A position-dependent program that links libssl lends its own jump table as the address of a function, and defines none. */
static bool is_stub(uintptr_t address) {
  Dl_info info;
  const ElfW(Sym) *symbol = NULL;
  return dladdr1((const void *)address, &info, (void **)(uintptr_t)&symbol, RTLD_DL_SYMENT) != 0 && symbol &&
         symbol->st_shndx == SHN_UNDEF;
}
#else
/* Without versions, and without stubs: where these are missing, programs are built position-independent. */
static const void *address_of(const dtls_import *i) { return i->address ? i->address : dlsym(RTLD_DEFAULT, i->symbol); }
static bool is_stub(uintptr_t address) { return address == 0; }
#endif

#if DTLS_HAS_PROGRAM_HEADERS
typedef struct {
  uintptr_t address;
  bool first; /* the next object that dl_iterate_phdr shows is the program */
  object *found;
} search;

static bool holds(const struct dl_phdr_info *info, uintptr_t address) {
  for (size_t i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    if (segment->p_type == PT_LOAD && address - (info->dlpi_addr + segment->p_vaddr) < segment->p_memsz) return true;
  }
  return false;
}

/* For dl_iterate_phdr, which shows the program first. Its name there is empty under glibc, and a path under musl. */
static int look(struct dl_phdr_info *info, size_t size, void *data) {
  search *s = data;
  bool is_program = s->first;
  (void)size;
  s->first = false;
  if (!holds(info, s->address)) return 0;
  *s->found = (object){.file = info->dlpi_name, .base = info->dlpi_addr, .is_program = is_program};
  return 1;
}

static bool find_object(uintptr_t address, object *out) {
  return dl_iterate_phdr(look, &(search){.address = address, .first = true, .found = out}) == 1;
}
#else
/* The program is the object that has main(), which a program that exports an OpenSSL exports as well. */
static bool find_object(uintptr_t address, object *out) {
  Dl_info info, program;
  const void *entry = dlsym(RTLD_DEFAULT, "main");
  if (dladdr((const void *)address, &info) == 0) return false;
  bool is_program = entry && dladdr(entry, &program) != 0 && program.dli_fbase == info.dli_fbase;
  *out = (object){.file = info.dli_fname, .base = (uintptr_t)info.dli_fbase, .is_program = is_program};
  return true;
}
#endif

/* ── who provides OpenSSL ── */

/* libssl.so.3, libssl.3.dylib */
static int part_of(const char *path) {
  const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
  if (strncmp(file, "libssl.", strlen("libssl.")) == 0) return FROM_SSL;
  return strncmp(file, "libcrypto.", strlen("libcrypto.")) == 0 ? FROM_CRYPTO : FROM_OTHER;
}

static void note_provider(census *c, const char *symbol, uintptr_t address) {
  object found;
  if (!find_object(address, &found) || (found.is_program && is_stub(address))) return;
  int part = found.is_program ? FROM_PROGRAM : part_of(found.file);
  if (c->from[part].symbol && c->from[part].base != found.base) part = FROM_OTHER;
  if (!c->from[part].symbol)
    c->from[part] = (provider){symbol, found.is_program ? "the executable" : found.file, found.base};
}

/* What libssl imports matters where libssl is used: a program that provides all of OpenSSL brings its own. */
static void take_census(census *c) {
  *c = (census){0};
  for (const dtls_import *i = dtls_imports; i->symbol; i++)
    if (i->address || c->from[FROM_SSL].symbol) note_provider(c, i->symbol, (uintptr_t)address_of(i));
}

/* OpenSSL keeps its ABI within a major release; a minor release adds functions, a patch release does not. */
static bool version_fits(unsigned long built, unsigned long running) {
  return running >> 28 == built >> 28 && running >> 20 >= built >> 20;
}

const char *dtls_linkage_name(void) {
  census c;
  take_census(&c);
  if (c.from[FROM_PROGRAM].symbol) return "host";
  return c.from[FROM_SSL].symbol || c.from[FROM_CRYPTO].symbol ? "shared" : "static";
}

const char *dtls_linkage_check(char *buf, size_t size) {
  census c;
  const provider *from = c.from, *host = &from[FROM_PROGRAM], *crypto = &from[FROM_CRYPTO], *other = &from[FROM_OTHER];

  take_census(&c);
  for (int a = 0; a < FROM_COUNT; a++)
    for (int b = a + 1; b < FROM_COUNT; b++) {
      if (!from[a].symbol || !from[b].symbol || (a == FROM_SSL && b == FROM_CRYPTO)) continue;
      snprintf(buf, size,
               "two copies of OpenSSL would run mixed, as %s comes from %s and %s from %s: "
               "build the module with a copy of its own, make OPENSSL=static",
               from[a].symbol, from[a].file, from[b].symbol, from[b].file);
      return buf;
    }
  if (other->symbol) {
    snprintf(buf, size,
             "OpenSSL comes from %s (%s), which is neither libssl nor libcrypto: "
             "run without it, or build the module with a copy of its own, make OPENSSL=static",
             other->file, other->symbol);
    return buf;
  }
  if (version_fits(OPENSSL_VERSION_NUMBER, OpenSSL_version_num())) return NULL;
  const char *file = host->symbol ? host->file : crypto->symbol ? crypto->file : "this module";
  const char *remedy = host->symbol ? "build the module with a copy of its own, make OPENSSL=static"
                                    : "rebuild the module against the installed OpenSSL";
  snprintf(buf, size, "compiled against %s, the module cannot run on %s, which comes from %s: %s", OPENSSL_VERSION_TEXT,
           OpenSSL_version(OPENSSL_VERSION), file, remedy);
  return buf;
}
