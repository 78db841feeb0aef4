/*
 * The certificates of the authorities that this machine trusts, for an X509_STORE. libcrypto finds them by itself where it was
 * built for this system. It finds nothing, and does not say so, where it was built without stdio or for another system's
 * directories: an executable's (luvi 2.15), or our own private copy on another distribution. There this file looks for them,
 * reads them without libcrypto's help, and gives it their text. Owns the store that all contexts of this process share.
 */
#include "identity/system_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/platform.h"
#include "identity/pem.h"

/* More than any distribution has: about 150 certificates, 250 KB in one file. */
enum { FILE_SIZE_MAX = 16 * 1024 * 1024, FOLDER_FILES_MAX = 4096 };

/* Where the distributions keep all of them in one file. */
static const char *const bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt",                /* Debian, Ubuntu, Arch, Gentoo, Alpine, NixOS */
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", /* Fedora, RHEL 7 and later */
    "/etc/pki/tls/certs/ca-bundle.crt",                  /* older ones of these */
    "/etc/ssl/ca-bundle.pem",                            /* SUSE */
    "/etc/ssl/cert.pem",                                 /* Alpine, OpenBSD, FreeBSD, macOS */
    "/usr/local/etc/ssl/cert.pem",                       /* FreeBSD's port of OpenSSL */
    "/usr/local/share/certs/ca-root-nss.crt",            /* FreeBSD's ca_root_nss */
};

/* Where they keep each in a file of its own, named by its hash. */
static const char *const folders[] = {"/etc/ssl/certs", "/etc/pki/tls/certs",
                                      "/system/etc/security/cacerts" /* Android */};

/* The places that were looked at, for the error message: cut short when they are too many. */
typedef struct {
  X509_STORE *store;
  char *text;
  size_t size;
  bool foreign; /* the place is one that libcrypto's builder has chosen, which on this machine may be anybody's */
  int found;    /* certificates */
} dtls_store_search;

static void note(dtls_store_search *search, const char *place) {
  size_t used = strlen(search->text);
  snprintf(search->text + used, search->size - used, "%s%s", used ? ", " : "", place);
}

/* ── reading ── */

static bool read_all(int fd, char *text, size_t size) {
  for (size_t used = 0; used < size;) {
    ssize_t count = read(fd, text + used, size - used);
    if (count <= 0) return false; /* no signal interrupts a regular file; one that shrinks is being replaced */
    used += (size_t)count;
  }
  return true;
}

/* Whether nobody but root and this process can have written it. */
static bool is_ours(const struct stat *status) {
  return (status->st_uid == 0 || status->st_uid == geteuid()) && (status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* The content of a regular file, which the caller frees; NULL: there is none that can be read. */
static char *read_file(const dtls_store_search *search, const char *path, size_t *size) {
  struct stat status;
  char *text = NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO without a writer must not hold us up */
  if (fd < 0) return NULL;
  bool usable = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && (!search->foreign || is_ours(&status));
  if (usable && status.st_size > 0 && status.st_size <= FILE_SIZE_MAX) {
    *size = (size_t)status.st_size;
    text = OPENSSL_malloc(*size);
  }
  if (text && !read_all(fd, text, *size)) {
    OPENSSL_free(text);
    text = NULL;
  }
  close(fd);
  return text;
}

/* As libcrypto's own reader does, with what a TRUSTED CERTIFICATE is trusted for. One that cannot be read is left out. */
static void add_text(dtls_store_search *search, BIO *bio) {
  for (size_t left = BIO_ctrl_pending(bio); left > 0;) {
    X509 *cert = PEM_read_bio_X509_AUX(bio, NULL, dtls_pem_passphrase, NULL);
    if (cert && X509_STORE_add_cert(search->store, cert) == 1) search->found++;
    X509_free(cert);
    size_t now = BIO_ctrl_pending(bio);
    if (now == left) return; /* out of memory */
    left = now;
  }
}

static void add_file(dtls_store_search *search, const char *path) {
  size_t size;
  char *text = read_file(search, path, &size);
  BIO *bio = text ? BIO_new_mem_buf(text, (int)size) : NULL;
  if (bio) add_text(search, bio);
  BIO_free(bio);
  OPENSSL_free(text);
}

/* Only what libcrypto would find there: eight digits of a hash, a dot, a number. Others may be anybody's, a server's own too. */
static bool is_hashed(const char *name) {
  return strspn(name, "0123456789abcdef") == 8 && name[8] == '.' && name[9] != '\0' &&
         name[9 + strspn(name + 9, "0123456789")] == '\0';
}

static void add_folder(dtls_store_search *search, const char *path) {
  char file[PATH_MAX];
  DIR *folder = opendir(path);
  if (!folder) return;
  struct dirent *entry;
  for (int files = 0; files < FOLDER_FILES_MAX && (entry = readdir(folder));) {
    if (!is_hashed(entry->d_name) || snprintf(file, sizeof file, "%s/%s", path, entry->d_name) >= (int)sizeof file)
      continue;
    add_file(search, file);
    files++;
  }
  closedir(folder);
}

/* ── looking ── */

static void look_at_file(dtls_store_search *search, const char *path) {
  note(search, path);
  add_file(search, path);
}

/* The next one of several paths with colons between them. False: there is none. */
static bool next_path(const char **paths, char path[PATH_MAX]) {
  while (**paths) {
    const char *from = *paths;
    size_t length = strcspn(from, ":");
    *paths += length + (from[length] == ':');
    if (length == 0 || length >= PATH_MAX) continue;
    memcpy(path, from, length);
    path[length] = '\0';
    return true;
  }
  return false;
}

static void look_at_folders(dtls_store_search *search, const char *paths) {
  char path[PATH_MAX];
  while (next_path(&paths, path)) {
    note(search, path);
    add_folder(search, path);
  }
}

static bool has_certificates(X509_STORE *store) {
  STACK_OF(X509) *all = X509_STORE_get1_all_certs(store);
  bool has = sk_X509_num(all) > 0;
  sk_X509_pop_free(all, X509_free);
  return has;
}

/* libcrypto's own places, of which the environment may name another file, other folders, or both. */
typedef struct {
  const char *file, *paths; /* what the environment says; NULL: nothing */
} dtls_store_names;

/* NULL, too, when the process has more rights than whoever started it. */
static const char *environment(const char *name) {
#if DTLS_HAS_SECURE_GETENV
  return secure_getenv(name);
#else
  return getuid() == geteuid() && getgid() == getegid() ? getenv(name) : NULL;
#endif
}

static dtls_store_names named_places(void) {
  return (dtls_store_names){.file = environment(X509_get_default_cert_file_env()),
                            .paths = environment(X509_get_default_cert_dir_env())};
}

/*
 * What libcrypto did not read: its own places, then those of the distributions, unless the environment names anything.
 */
static void look_around(dtls_store_search *search) {
  dtls_store_names names = named_places();
  bool named = names.file || names.paths;
  search->foreign = !names.file;
  look_at_file(search, names.file ? names.file : X509_get_default_cert_file());
  search->foreign = !names.paths;
  look_at_folders(search, names.paths ? names.paths : X509_get_default_cert_dir());
  search->foreign = false;
  for (size_t i = 0; i < sizeof bundles / sizeof *bundles && !named && search->found == 0; i++)
    look_at_file(search, bundles[i]);
  for (size_t i = 0; i < sizeof folders / sizeof *folders && !named && search->found == 0; i++)
    look_at_folders(search, folders[i]);
}

const char *dtls_system_store_fill(X509_STORE *store, char *buf, size_t size) {
  char places[512] = "";
  dtls_store_search search = {.store = store, .text = places, .size = sizeof places};
  bool usable = X509_STORE_set_default_paths(store) == 1;
  if (usable && has_certificates(store)) return NULL;
  look_around(&search);
  ERR_clear_error(); /* what was not found or not readable */
  if (search.found > 0) return NULL;
  snprintf(buf, size,
           "ca: this machine has no certificates of authorities at the usual places (%s): give them as the option ca, "
           "or name a file of them in %s",
           places, X509_get_default_cert_file_env());
  return buf;
}

/* ── the store that contexts share ── */

/* Parsing 150 certificates takes 16 ms and 0.8 MB, so a process does it once. Never freed: it is the process's. */
static struct {
  CRYPTO_RWLOCK *lock; /* Lua states of several threads may have this module */
  X509_STORE *store;
  uint8_t seen[EVP_MAX_MD_SIZE]; /* the digest of what the places looked like when the store was filled */
} shared;

static CRYPTO_ONCE shared_once = CRYPTO_ONCE_STATIC_INIT;
static void make_lock(void) { shared.lock = CRYPTO_THREAD_lock_new(); }

/* Which file is at a place, and when it was changed last. */
static bool digest_place(EVP_MD_CTX *md, const char *place) {
  struct stat s;
  if (stat(place, &s) != 0) s = (struct stat){.st_size = -1};
  const int64_t state[] = {(int64_t)s.st_dev,
                           (int64_t)s.st_ino,
                           (int64_t)s.st_size,
                           (int64_t)s.DTLS_ST_MTIM.tv_sec,
                           (int64_t)s.DTLS_ST_MTIM.tv_nsec,
                           (int64_t)s.DTLS_ST_CTIM.tv_sec,
                           (int64_t)s.DTLS_ST_CTIM.tv_nsec};
  return EVP_DigestUpdate(md, place, strlen(place) + 1) && EVP_DigestUpdate(md, state, sizeof state);
}

/* What all places look like, whether or not they were needed: one that comes to be may be one that is looked at earlier. */
static bool digest_places(EVP_MD_CTX *md) {
  dtls_store_names names = named_places();
  const char *paths = names.paths ? names.paths : X509_get_default_cert_dir();
  char path[PATH_MAX];
  bool ok = digest_place(md, names.file ? names.file : X509_get_default_cert_file());
  while (ok && next_path(&paths, path)) ok = digest_place(md, path);
  for (size_t i = 0; i < sizeof bundles / sizeof *bundles && ok; i++) ok = digest_place(md, bundles[i]);
  for (size_t i = 0; i < sizeof folders / sizeof *folders && ok; i++) ok = digest_place(md, folders[i]);
  return ok;
}

static bool look(uint8_t seen[EVP_MAX_MD_SIZE]) {
  EVP_MD_CTX *md = EVP_MD_CTX_new();
  bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) && digest_places(md) && EVP_DigestFinal_ex(md, seen, NULL);
  EVP_MD_CTX_free(md);
  return ok;
}

/* A filled store in place of the one before, which the contexts that have it keep. NULL, or the sentence of fill. */
static const char *fill_shared(const uint8_t seen[EVP_MAX_MD_SIZE], char *buf, size_t size) {
  X509_STORE *store = X509_STORE_new();
  const char *missing = store ? dtls_system_store_fill(store, buf, size) : "ca: out of memory";
  X509_STORE_free(shared.store);
  shared.store = missing ? NULL : store;
  if (missing) X509_STORE_free(store);
  memcpy(shared.seen, seen, EVP_MAX_MD_SIZE);
  return missing;
}

const char *dtls_system_store_share(SSL_CTX *ctx, char *buf, size_t size) {
  uint8_t seen[EVP_MAX_MD_SIZE] = {0};
  const char *missing = NULL;
  if (!CRYPTO_THREAD_run_once(&shared_once, make_lock) || !shared.lock || !look(seen) ||
      !CRYPTO_THREAD_write_lock(shared.lock))
    return "ca: out of memory";
  if (!shared.store || memcmp(seen, shared.seen, sizeof seen) != 0) missing = fill_shared(seen, buf, size);
  if (!missing) SSL_CTX_set1_cert_store(ctx, shared.store);
  CRYPTO_THREAD_unlock(shared.lock);
  return missing;
}
