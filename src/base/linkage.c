/*
 * Which OpenSSL this module runs on, and whether it is one usable copy. Owns the reading back of what the dynamic
 * linker bound our OpenSSL imports to, and the verdict on it. Does not raise the error (core.c does), and keeps
 * nothing: every call looks afresh, since it is made once per load.
 */
#include "base/linkage.h"

#include <ctype.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/openssl.h"

#if UINTPTR_MAX > 0xffffffffu
#define DTLS_R_SYM(info) ELF64_R_SYM(info)
#else
#define DTLS_R_SYM(info) ELF32_R_SYM(info)
#endif

/* A loaded ELF object, as dl_iterate_phdr describes it; valid while it stays loaded. */
typedef struct {
  const char *name;
  uintptr_t base;
  const ElfW(Phdr) * headers;
  size_t count;
  bool program;
} dtls_object;

/* What an object may be to us. Usable are MODULE alone, PROGRAM alone, or one SSL with one CRYPTO. */
enum { FROM_MODULE, FROM_PROGRAM, FROM_SSL, FROM_CRYPTO, FROM_OTHER, FROM_COUNT };

/* An object that provides OpenSSL, with one symbol that it provides: the witness for the error message. */
typedef struct {
  const char *symbol;
  dtls_object object;
} dtls_source;

typedef struct {
  dtls_object module;
  dtls_source from[FROM_COUNT];
  dtls_source second; /* another object in a part that is already taken: two libssl, two libcrypto */
} dtls_census;

/* One binding that the dynamic linker made: `owner` uses `symbol` and got `address`. */
typedef struct {
  const dtls_object *owner;
  const char *symbol;
  uintptr_t address;
  bool undefined; /* owner has no definition of its own */
} dtls_binding;

typedef bool (*dtls_visitor)(void *data, const dtls_binding *binding);

typedef struct {
  uintptr_t start;
  size_t bytes, stride;
} dtls_table;

typedef struct {
  const char *strings;
  const ElfW(Sym) * symbols;
  dtls_table plt, rela, rel;
} dtls_dynamic;

typedef struct {
  uintptr_t address;
  bool later;
  dtls_object found;
} dtls_search;

/* ── objects ── */

static bool segment_holds(const dtls_object *object, ElfW(Word) type, uintptr_t address) {
  for (size_t i = 0; i < object->count; i++) {
    const ElfW(Phdr) *header = &object->headers[i];
    if (header->p_type == type && address - (object->base + header->p_vaddr) < header->p_memsz) return true;
  }
  return false;
}

static int search_object(struct dl_phdr_info *info, size_t size, void *data) {
  dtls_search *search = data;
  dtls_object object = {info->dlpi_name, info->dlpi_addr, info->dlpi_phdr, info->dlpi_phnum, !search->later};

  (void)size;
  search->later = true; /* the program itself comes first: with an empty name under glibc, its path under musl */
  if (!segment_holds(&object, PT_LOAD, search->address)) return 0;
  search->found = object;
  return 1;
}

static bool find_object(uintptr_t address, dtls_object *object) {
  dtls_search search = {.address = address};

  if (!dl_iterate_phdr(search_object, &search)) return false;
  *object = search.found;
  return true;
}

static bool same_object(const dtls_object *a, const dtls_object *b) { return a->headers == b->headers; }

static const char *object_text(const dtls_census *census, const dtls_object *object) {
  if (same_object(object, &census->module)) return "this module";
  return object->program ? "the executable" : object->name;
}

static int object_part(const dtls_census *census, const dtls_object *object) {
  const char *slash = strrchr(object->name, '/');
  const char *file = slash ? slash + 1 : object->name;

  if (same_object(object, &census->module)) return FROM_MODULE;
  if (object->program) return FROM_PROGRAM;
  if (strncmp(file, "libssl.so", 9) == 0) return FROM_SSL;
  if (strncmp(file, "libcrypto.so", 12) == 0) return FROM_CRYPTO;
  return FROM_OTHER;
}

/* ── bindings ── */

/* OpenSSL's public functions begin with a capital (SSL_, DTLSv1_, X509_, …) or look like d2i_ and i2a_. Nothing else
   does that we or libssl import: libc and Lua are in lower case. A list of prefixes would have to be kept up. */
static bool is_openssl_name(const char *name) {
  if (name[0] >= 'A' && name[0] <= 'Z') return true;
  return islower((unsigned char)name[0]) && name[1] == '2' && islower((unsigned char)name[2]);
}

/* glibc writes the address into the dynamic section, musl and some architectures of glibc leave the offset. */
static uintptr_t located(const dtls_object *object, ElfW(Addr) value) {
  return value < object->base ? object->base + value : value;
}

static const ElfW(Dyn) * dynamic_section(const dtls_object *object) {
  for (size_t i = 0; i < object->count; i++)
    if (object->headers[i].p_type == PT_DYNAMIC) return (const ElfW(Dyn) *)(object->base + object->headers[i].p_vaddr);
  return NULL;
}

static void read_entry(dtls_dynamic *dynamic, const dtls_object *object, const ElfW(Dyn) * entry) {
  switch (entry->d_tag) {
    case DT_STRTAB: dynamic->strings = (const char *)located(object, entry->d_un.d_ptr); break;
    case DT_SYMTAB: dynamic->symbols = (const ElfW(Sym) *)located(object, entry->d_un.d_ptr); break;
    case DT_JMPREL: dynamic->plt.start = located(object, entry->d_un.d_ptr); break;
    case DT_PLTRELSZ: dynamic->plt.bytes = entry->d_un.d_val; break;
    case DT_PLTREL: dynamic->plt.stride = entry->d_un.d_val == DT_RELA ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel)); break;
    case DT_RELA: dynamic->rela.start = located(object, entry->d_un.d_ptr); break;
    case DT_RELASZ: dynamic->rela.bytes = entry->d_un.d_val; break;
    case DT_REL: dynamic->rel.start = located(object, entry->d_un.d_ptr); break;
    case DT_RELSZ: dynamic->rel.bytes = entry->d_un.d_val; break;
    default: break;
  }
}

static bool read_dynamic(const dtls_object *object, dtls_dynamic *dynamic) {
  const ElfW(Dyn) *entry = dynamic_section(object);

  memset(dynamic, 0, sizeof *dynamic);
  dynamic->rela.stride = sizeof(ElfW(Rela));
  dynamic->rel.stride = sizeof(ElfW(Rel));
  for (; entry && entry->d_tag != DT_NULL; entry++) read_entry(dynamic, object, entry);
  return dynamic->strings && dynamic->symbols;
}

/* Jump slots are changed by the dynamic linker only. Other slots count when they went read-only after relocation (the
   GOT, constant tables): a writable one may hold what a program put there since, as CRYPTO_set_mem_functions does.
   This needs no relocation types, so it is the same on every architecture. */
static bool visit_table(const dtls_object *object, const dtls_dynamic *dynamic, const dtls_table *table,
                        dtls_visitor visit, void *data) {
  if (!table->start || !table->stride) return false;
  for (size_t at = 0; at + table->stride <= table->bytes; at += table->stride) {
    const ElfW(Rel) *relocation = (const ElfW(Rel) *)(table->start + at); /* a Rela begins like a Rel */
    const ElfW(Sym) *symbol = &dynamic->symbols[DTLS_R_SYM(relocation->r_info)];
    uintptr_t slot = object->base + relocation->r_offset;
    dtls_binding binding = {object, dynamic->strings + symbol->st_name, 0, symbol->st_shndx == SHN_UNDEF};

    if (DTLS_R_SYM(relocation->r_info) == 0 || !is_openssl_name(binding.symbol)) continue;
    if (table != &dynamic->plt && !segment_holds(object, PT_GNU_RELRO, slot)) continue;
    memcpy(&binding.address, (const void *)slot, sizeof binding.address);
    if (binding.address != 0 && visit(data, &binding)) return true; /* 0: a weak symbol that nobody has */
  }
  return false;
}

/* Shows every OpenSSL binding of an object to `visit` until it returns true. */
static bool visit_bindings(const dtls_object *object, dtls_visitor visit, void *data) {
  dtls_dynamic dynamic;

  return read_dynamic(object, &dynamic) && (visit_table(object, &dynamic, &dynamic.plt, visit, data) ||
                                            visit_table(object, &dynamic, &dynamic.rela, visit, data) ||
                                            visit_table(object, &dynamic, &dynamic.rel, visit, data));
}

/* ── the census ── */

static bool is_import_of(void *data, const dtls_binding *binding) {
  return binding->undefined && strcmp(binding->symbol, (const char *)data) == 0;
}

/* A position-dependent program that links libssl dynamically lends its own jump table as the address of a function:
   then it has a jump slot for it, and no definition. */
static bool is_stub(const dtls_object *object, const char *symbol) {
  dtls_dynamic dynamic;

  return object->program && read_dynamic(object, &dynamic) &&
         visit_table(object, &dynamic, &dynamic.plt, is_import_of, (void *)(uintptr_t)symbol);
}

static bool count_binding(void *data, const dtls_binding *binding) {
  dtls_census *census = data;
  dtls_source source = {binding->symbol, *binding->owner};
  bool own = segment_holds(binding->owner, PT_LOAD, binding->address);
  dtls_source *taken;

  if (own && binding->undefined) return false; /* still at the owner's jump table, not bound yet */
  /* What libcrypto itself imports is not OpenSSL's: ZSTD_, Brotli. What it defines may be overridden. */
  if (binding->undefined && object_part(census, binding->owner) == FROM_CRYPTO) return false;
  if (!own && !find_object(binding->address, &source.object)) return false;
  if (!own && is_stub(&source.object, binding->symbol)) return false;

  taken = &census->from[object_part(census, &source.object)];
  if (!taken->symbol)
    *taken = source;
  else if (!census->second.symbol && !same_object(&taken->object, &source.object))
    census->second = source;
  return false;
}

/* The shared libraries are looked through as well: whoever overrides a function of libcrypto does so for them too. */
static void take_census(dtls_census *census) {
  memset(census, 0, sizeof *census);
  if (!find_object((uintptr_t)search_object, &census->module)) return;
  visit_bindings(&census->module, count_binding, census);
  for (int part = FROM_SSL; part <= FROM_CRYPTO; part++)
    if (census->from[part].symbol) visit_bindings(&census->from[part].object, count_binding, census);
}

/* ── the verdict ── */

static const char *refuse_mixed(const dtls_census *census, const dtls_source *a, const dtls_source *b, char *buf,
                                size_t size) {
  snprintf(buf, size,
           "two copies of OpenSSL would run mixed, as %s comes from %s and %s from %s: "
           "build the module with a copy of its own, make OPENSSL=static",
           a->symbol, object_text(census, &a->object), b->symbol, object_text(census, &b->object));
  return buf;
}

static const char *check_sources(const dtls_census *census, char *buf, size_t size) {
  const dtls_source *from = census->from;

  for (int a = 0; a < FROM_COUNT; a++)
    for (int b = a + 1; b < FROM_COUNT; b++)
      if (from[a].symbol && from[b].symbol && !(a == FROM_SSL && b == FROM_CRYPTO))
        return refuse_mixed(census, &from[a], &from[b], buf, size);
  if (census->second.symbol)
    return refuse_mixed(census, &from[object_part(census, &census->second.object)], &census->second, buf, size);
  if (from[FROM_OTHER].symbol) {
    snprintf(buf, size,
             "OpenSSL comes from %s (%s), which is neither libssl nor libcrypto: "
             "run without it, or build the module with a copy of its own, make OPENSSL=static",
             from[FROM_OTHER].object.name, from[FROM_OTHER].symbol);
    return buf;
  }
  return NULL;
}

/* OpenSSL keeps its ABI within a major release; a minor release adds functions, a patch release does not. */
static bool version_fits(unsigned long built, unsigned long running) {
  return running >> 28 == built >> 28 && running >> 20 >= built >> 20;
}

static const char *check_version(const dtls_census *census, char *buf, size_t size) {
  const dtls_source *from = census->from;
  bool host = from[FROM_PROGRAM].symbol != NULL;
  const dtls_object *provider = host                       ? &from[FROM_PROGRAM].object
                                : from[FROM_CRYPTO].symbol ? &from[FROM_CRYPTO].object
                                                           : &census->module;

  if (version_fits(OPENSSL_VERSION_NUMBER, OpenSSL_version_num())) return NULL;
  snprintf(buf, size, "compiled against %s, the module cannot run on %s, which comes from %s: %s", OPENSSL_VERSION_TEXT,
           OpenSSL_version(OPENSSL_VERSION), object_text(census, provider),
           host ? "build the module with a copy of its own, make OPENSSL=static"
                : "rebuild the module against the installed OpenSSL");
  return buf;
}

const char *dtls_linkage_name(void) {
  dtls_census census;

  take_census(&census);
  if (census.from[FROM_PROGRAM].symbol) return "host";
  return census.from[FROM_SSL].symbol || census.from[FROM_CRYPTO].symbol ? "shared" : "static";
}

const char *dtls_linkage_check(char *buf, size_t size) {
  dtls_census census;
  const char *refusal;

  take_census(&census);
  refusal = check_sources(&census, buf, size);
  return refusal ? refusal : check_version(&census, buf, size);
}
