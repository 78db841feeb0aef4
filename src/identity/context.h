/* SSL_CTX and what hangs on it. */
#ifndef DTLS_IDENTITY_CONTEXT_H
#define DTLS_IDENTITY_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/failure.h"
#include "base/openssl.h"
#include "binding/lua.h"

enum { DTLS_DIGEST_SIZE = 32, DTLS_TICKET_KEY_SIZE = 80, DTLS_SECURITY_LEVEL = 2, DTLS_OPENER_CURVES = 3 };

typedef struct {
  char *identity; /* bytes, and a NUL behind them */
  uint8_t *key;
  size_t identity_size, key_size;
} dtls_psk;

typedef struct {
  X509 *cert;
  EVP_PKEY *key;
} dtls_key_pair;

/* What our callbacks need. Hangs on the SSL_CTX and is freed with it. */
typedef struct {
  bool server;
  char *groups;      /* OpenSSL's list; SSL_set_SSL_CTX does not take it along */
  int (*default_security)(const SSL *, const SSL_CTX *, int, int, int, void *, void *); /* NULL: still in use */
  /* opener.c */
  unsigned keys; /* DTLS_KEY_… */
  dtls_key_pair ec_opener[DTLS_OPENER_CURVES], rsa_opener;
  /* verify.c */
  bool reject;      /* a peer that is not authorized ends the handshake */
  bool has_ca;
  bool asks_verify; /* the application looks at a good chain, too */
  bool partial_chain; /* any certificate among the authorities is an anchor */
  bool ignores_dates;
  time_t verify_time; /* at which certificates are looked at; -1: now */
  size_t pins;
  uint8_t (*pin)[DTLS_DIGEST_SIZE];
  /* psk.c */
  bool asks_psk;  /* the application knows identities and keys */
  size_t psks;
  dtls_psk *psk; /* sorted by identity; a client has one */
  /* extension.c: protocol names with their lengths before them (RFC 7301) */
  uint8_t *alpn;
  size_t alpn_size;
  char *sigalgs; /* OpenSSL's list, as it was set last */
  /* session.c */
  uint8_t policy[DTLS_DIGEST_SIZE]; /* of all that decides who may resume */
  uint64_t session_timeout;         /* ms */
  bool own_ticket_keys;             /* random ones, rotated by themselves after that time */
  unsigned ticket_keys;             /* 0 to 2: the current one, the previous one */
  uint8_t ticket_key[2][DTLS_TICKET_KEY_SIZE];
  uint64_t ticket_keys_since; /* ms */
  /* keylog.c */
  bool keylog_event;
  int keylog_fd; /* -1: none */
} dtls_config;

/* How an option is taken: from the table at index 2. NULL, or a sentence; OpenSSL's queue may say more. */
typedef const char *dtls_option_taker(lua_State *L, SSL_CTX *ctx, dtls_config *c);

void dtls_context_init(lua_State *L);
dtls_config *dtls_config_of(const SSL_CTX *ctx);
static inline const dtls_config *dtls_config_of_ssl(const SSL *ssl) { return dtls_config_of(SSL_get_SSL_CTX(ssl)); }
SSL_CTX *dtls_context_check(lua_State *L, int index, bool server);
SSL_CTX *dtls_context_self(lua_State *L); /* the one at index 1 */
int dtls_context_new(lua_State *L); /* core.context(role, options) */
/* The handshake goes on with another identity: all that SSL_set_SSL_CTX takes along, and all that it does not. */
bool dtls_context_adopt(SSL *ssl, SSL_CTX *ctx);
const char *dtls_option_string(lua_State *L, const char *name); /* of the table at index 2; NULL: absent */
bool dtls_option_boolean(lua_State *L, const char *name);
/* Pushes the list (or nil) of that name; returns its length. */
size_t dtls_option_list(lua_State *L, const char *name);
BIO *dtls_text_bio(lua_State *L, int index); /* reads the string there, which must stay alive */
int dtls_no_passphrase(char *buffer, int size, int writing, void *secret); /* never asks at a terminal; secret may be NULL */
bool dtls_at_end_of_pem(void); /* whether the last PEM read failed only because the text was at its end */

#endif
