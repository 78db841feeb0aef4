/*
 * Which OpenSSL this module runs on, and whether it is one usable copy. A program may export an OpenSSL of its own (luvi does),
 * all of it or a part, and a preloaded library may override functions of it: then two copies would run mixed. The build lists the
 * functions that the core and libssl import (linkage.h); here each address is traced to the loaded object that holds it.
 */
#include "base/linkage.h"

#include <dlfcn.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/openssl.h"

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
  const char *symbol;        /* the function that is being traced, and its address */
  uintptr_t address;
  bool first; /* the next object that dl_iterate_phdr shows is the program */
} census;

/* musl knows neither versions nor the symbol of an address. Its distributions build programs position-independent: no stubs. */
#ifndef __GLIBC__
static const void *address_of(const dtls_import *i) { return i->address ? i->address : dlsym(RTLD_DEFAULT, i->symbol); }
static bool is_stub(uintptr_t address) { return address == 0; }
#else
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
#endif

static int part_of(const char *path) {
  const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
  if (strncmp(file, "libssl.so", strlen("libssl.so")) == 0) return FROM_SSL;
  return strncmp(file, "libcrypto.so", strlen("libcrypto.so")) == 0 ? FROM_CRYPTO : FROM_OTHER;
}

static bool holds(const struct dl_phdr_info *object, uintptr_t address) {
  for (size_t i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
    if (segment->p_type == PT_LOAD && address - (object->dlpi_addr + segment->p_vaddr) < segment->p_memsz) return true;
  }
  return false;
}

/* For dl_iterate_phdr, which shows the program first. Its name there is empty under glibc, and a path under musl. */
static int note_provider(struct dl_phdr_info *object, size_t size, void *data) {
  census *c = data;
  bool program = c->first;
  (void)size;
  c->first = false;
  if (!holds(object, c->address)) return 0;
  if (program && is_stub(c->address)) return 1;
  int part = program ? FROM_PROGRAM : part_of(object->dlpi_name);
  if (c->from[part].symbol && c->from[part].base != object->dlpi_addr) part = FROM_OTHER;
  if (!c->from[part].symbol)
    c->from[part] = (provider){c->symbol, program ? "the executable" : object->dlpi_name, object->dlpi_addr};
  return 1;
}

/* What libssl imports matters where libssl is used: a program that provides all of OpenSSL brings its own. */
static void take_census(census *c) {
  *c = (census){0};
  for (const dtls_import *i = dtls_imports; i->symbol; i++) {
    if (!i->address && !c->from[FROM_SSL].symbol) continue;
    c->symbol = i->symbol;
    c->address = (uintptr_t)address_of(i);
    c->first = true;
    dl_iterate_phdr(note_provider, c);
  }
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
