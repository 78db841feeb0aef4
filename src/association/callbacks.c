/*
 * What only the application can answer: which identity a name has, a stored session, a pre-shared key, whether a good
 * certificate is good enough. The handshake is held until it has, outside libssl: no Lua ever runs inside.
 *
 * libssl itself can wait at the hello (SSL_CLIENT_HELLO_RETRY) and at a server's certificate (SSL_set_retry_verify).
 * It cannot wait for a pre-shared key, so there the datagram that would make it ask is kept back: a server's
 * ClientKeyExchange, which has the identity in the clear, and a client's ServerHelloDone, which follows the hint.
 * Datagrams that arrive meanwhile are kept behind it, in their order.
 */
#include "association/callbacks.h"

#include <string.h>

#include "association/association.h"
#include "association/endpoint.h"
#include "binding/error.h"
#include "identity/opener.h"
#include "identity/psk.h"
#include "identity/session.h"

enum {
  KEPT_MAX = 32, /* datagrams; a flight is shorter, and what does not fit is repeated by the peer */
  KEPT_BYTES_MAX = 32 * 1024,
  ID_MAX_SIZE = SSL_MAX_SSL_SESSION_ID_LENGTH,
  IDENTITY_PREFIX = 2 /* RFC 4279 §2: opaque psk_identity<0..2^16-1> */
};

typedef enum { NOTHING, HELLO, PSK, VERIFY } question;

typedef struct kept {
  struct kept *next;
  size_t size;
  uint8_t data[];
} kept;

struct dtls_callback {
  question asked; /* and not answered yet */
  unsigned answered; /* bits: 1 << question */
  /* HELLO */
  dtls_name name;
  bool is_name; /* what was asked for, if anything */
  uint8_t id[ID_MAX_SIZE];
  size_t id_size;
  bool chosen; /* the answer was an identity for that name */
  int alert;   /* refused with it; -1: not refused */
  SSL_SESSION *session;
  /* PSK */
  uint8_t identity[IDENTITY_PREFIX + PSK_MAX_IDENTITY_LEN]; /* as it is on the wire, gathered from fragments */
  uint8_t have[IDENTITY_PREFIX + PSK_MAX_IDENTITY_LEN];
  dtls_psk psk;
  bool psk_failed; /* whoever knows the keys has none to give and no reason to refuse */
  /* VERIFY */
  bool good;
  kept *first, **end;
  unsigned count;
  size_t bytes;
};

/* ── life ── */

static dtls_callback *need(dtls_association *a) {
  if (!a->callback && (a->callback = OPENSSL_zalloc(sizeof *a->callback))) {
    a->callback->end = &a->callback->first;
    a->callback->alert = -1;
  }
  return a->callback;
}

void dtls_callback_free(dtls_association *a) {
  dtls_callback *h = a->callback;
  if (!h) return;
  a->callback = NULL;
  while (h->first) {
    kept *next = h->first->next;
    OPENSSL_free(h->first);
    h->first = next;
  }
  SSL_SESSION_free(h->session);
  OPENSSL_free(h->psk.identity);
  OPENSSL_clear_free(h->psk.key, h->psk.key_size);
  OPENSSL_free(h);
}

/* A peer is the first member of its association. */
static dtls_association *of_peer(dtls_peer *peer) { return (dtls_association *)peer; }

bool dtls_callback_asks(const dtls_association *a) { return a->callback && a->callback->asked != NOTHING; }

static bool has_answer(const dtls_association *a, question q) { return a->callback && a->callback->answered >> q & 1; }

/* ── datagrams that wait ── */

static kept *copy(dtls_association *a, const uint8_t *data, size_t size) {
  bool room = a->callback->count < KEPT_MAX && a->callback->bytes + size <= KEPT_BYTES_MAX;
  kept *entry = room ? OPENSSL_malloc(sizeof *entry + size) : NULL;
  if (!entry) {
    DTLS_DROP(a, STASH);
    return NULL;
  }
  entry->next = NULL;
  entry->size = size;
  memcpy(entry->data, data, size);
  a->callback->count++;
  a->callback->bytes += size;
  return entry;
}

void dtls_callback_keep(dtls_association *a, const uint8_t *data, size_t size) {
  kept *entry = copy(a, data, size);
  if (!entry) return;
  *a->callback->end = entry;
  a->callback->end = &entry->next;
}

static void keep_in_front(dtls_association *a, const uint8_t *data, size_t size) {
  kept *entry = copy(a, data, size);
  if (!entry) return;
  entry->next = a->callback->first;
  a->callback->first = entry;
  if (!entry->next) a->callback->end = &entry->next;
}

bool dtls_callback_pending(const dtls_association *a) { return a->callback && a->callback->asked == NOTHING && a->callback->first; }

/* One that libssl has no room for is dropped: cut, it would no longer be what the screen has looked at. */
size_t dtls_callback_next(dtls_association *a, uint8_t *out, size_t capacity) {
  dtls_callback *h = a->callback;
  size_t size = 0;
  while (h->first && size == 0) {
    kept *entry = h->first;
    if (entry->size <= capacity) {
      size = entry->size;
      memcpy(out, entry->data, size);
    } else {
      DTLS_DROP(a, LENGTH);
    }
    h->first = entry->next;
    if (!h->first) h->end = &h->first;
    h->count--;
    h->bytes -= entry->size;
    OPENSSL_free(entry);
  }
  return size;
}

/* ── the hello: a server's name, a stored session ── */

/* The host_name of a server_name extension (RFC 6066 §3); libssl refuses those that are malformed. False: it is no name. */
static bool find_name_untrusted(SSL *ssl, dtls_name *out) {
  enum { LIST_PREFIX = 2, ENTRY_PREFIX = 3 };
  const uint8_t *p;
  size_t total;
  *out = (dtls_name){.size = 0};
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &total) != 1 || total < LIST_PREFIX + ENTRY_PREFIX) return true;
  size_t length = dtls_u16(p + LIST_PREFIX + 1);
  if (p[LIST_PREFIX] != TLSEXT_NAMETYPE_host_name || length > total - LIST_PREFIX - ENTRY_PREFIX) return true;
  return dtls_name_of_client_untrusted((const char *)p + LIST_PREFIX + ENTRY_PREFIX, length, out);
}

static int ask_hello(SSL *ssl, dtls_association *a, const dtls_name *name, bool good) {
  dtls_callback *h = need(a);
  const unsigned char *id;
  if (!h) return SSL_CLIENT_HELLO_ERROR;
  h->name = *name;
  h->is_name = good;
  h->id_size = SSL_client_hello_get0_session_id(ssl, &id);
  if (h->id_size > ID_MAX_SIZE) h->id_size = 0;
  if (h->id_size > 0) memcpy(h->id, id, h->id_size);
  h->asked = HELLO;
  return SSL_CLIENT_HELLO_RETRY;
}

static int on_hello(SSL *ssl, int *alert, void *argument) {
  dtls_association *a = dtls_association_of(ssl);
  dtls_name name;
  bool good = find_name_untrusted(ssl, &name);
  (void)argument;
  if (a->asks_hello && !has_answer(a, HELLO)) return ask_hello(ssl, a, &name, good);
  if (a->callback && a->callback->alert >= 0) {
    *alert = a->callback->alert;
    return SSL_CLIENT_HELLO_ERROR;
  }
  return dtls_opener_use_untrusted(ssl) && dtls_session_bind(ssl, name.text, name.size) ? SSL_CLIENT_HELLO_SUCCESS : SSL_CLIENT_HELLO_ERROR;
}

/*
 * RFC 6066 §3: who acknowledges a name has used it. Pion's clients up to 2.2 wait for ever when they read one that is
 * acknowledged. libssl keeps only an acknowledged name with the session; a session is bound to any, and says it when it
 * is resumed.
 */
static int on_servername(SSL *ssl, int *alert, void *argument) {
  const dtls_association *a = dtls_association_of(ssl);
  const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  (void)argument;
  *alert = SSL_AD_INTERNAL_ERROR;
  if (a->callback && a->callback->chosen) return SSL_TLSEXT_ERR_OK;
  if (name && !SSL_session_reused(ssl) && SSL_SESSION_set1_hostname(SSL_get0_session(ssl), name) != 1) return SSL_TLSEXT_ERR_ALERT_FATAL;
  return SSL_TLSEXT_ERR_NOACK;
}

void dtls_callback_callbacks(SSL_CTX *ctx) {
  SSL_CTX_set_client_hello_cb(ctx, on_hello, NULL);
  SSL_CTX_set_tlsext_servername_callback(ctx, on_servername);
}

static SSL_SESSION *take_session(dtls_peer *peer, const uint8_t *id, size_t size) {
  dtls_callback *h = of_peer(peer)->callback;
  if (!h || !h->session) return NULL;
  unsigned found_size;
  const unsigned char *found = SSL_SESSION_get_id(h->session, &found_size);
  if (found_size != size || memcmp(found, id, size) != 0) return NULL;
  SSL_SESSION *session = h->session;
  h->session = NULL;
  return session;
}

/* ── the pre-shared key ── */

/* Takes in what a fragment of ClientKeyExchange says of the identity. */
static void gather_untrusted(dtls_callback *h, const uint8_t *fragment) {
  size_t offset = dtls_u24(fragment + 6), size = dtls_u24(fragment + 9);
  for (size_t i = 0; i < size && offset + i < sizeof h->identity; i++) {
    h->identity[offset + i] = fragment[DTLS_HANDSHAKE_HEADER + i];
    h->have[offset + i] = 1;
  }
}

/* Longer ones are never complete; libssl refuses them itself. */
static bool is_complete(const dtls_callback *h) {
  size_t end = IDENTITY_PREFIX + (size_t)dtls_u16(h->identity);
  return h->have[0] && h->have[1] && end <= sizeof h->identity && !memchr(h->have, 0, end);
}

bool dtls_callback_untrusted(dtls_association *a, const uint8_t *record, size_t size) {
  const uint8_t *message = record + DTLS_RECORD_HEADER;
  if (!dtls_config_of_ssl(a->ssl)->asks_psk || has_answer(a, PSK) || !dtls_psk_suite(a->ssl)) return false;
  if (message[0] != (a->server ? SSL3_MT_CLIENT_KEY_EXCHANGE : SSL3_MT_SERVER_DONE) || !need(a)) return false;
  if (a->server) {
    gather_untrusted(a->callback, message);
    if (!is_complete(a->callback)) return false;
  }
  a->callback->asked = PSK;
  keep_in_front(a, record, size);
  return true;
}

static const dtls_psk *psk_for(const dtls_peer *peer, bool *failed) {
  const dtls_association *a = (const dtls_association *)peer;
  bool has = has_answer(a, PSK); /* no: there was no memory for the question */
  *failed = *failed || !has || a->callback->psk_failed;
  return has && a->callback->psk.key ? &a->callback->psk : NULL;
}

/* ── a server's certificate ── */

static dtls_answer ask_verify(dtls_peer *peer) {
  dtls_association *a = of_peer(peer);
  if (has_answer(a, VERIFY)) return a->callback->good ? DTLS_YES : DTLS_NO;
  if (!need(a)) return DTLS_NO;
  a->callback->asked = VERIFY;
  return DTLS_UNANSWERED;
}

const dtls_questions dtls_callback_questions = {.verify = ask_verify, .psk = psk_for, .session = take_session};

/* ── asking and answering ── */

const char *dtls_callback_unanswered(const dtls_association *a) {
  switch (a->callback ? a->callback->asked : NOTHING) {
    case HELLO: return "SNICallback or sessionStore";
    case PSK: return "psk";
    case VERIFY: return "checkServerIdentity";
    default: return NULL;
  }
}

const dtls_name *dtls_callback_name(const dtls_association *a) {
  return a->callback && a->callback->name.size > 0 ? &a->callback->name : NULL;
}

const char *dtls_callback_identity(const dtls_association *a, size_t *size) {
  if (!a->server || !a->callback || !is_complete(a->callback)) return NULL;
  *size = dtls_u16(a->callback->identity);
  return (const char *)a->callback->identity + IDENTITY_PREFIX;
}

int dtls_callback_push(lua_State *L, dtls_association *a) {
  dtls_callback *h = a->callback;
  const char *hint = SSL_get_psk_identity_hint(a->ssl);
  lua_pushnil(L);
  switch (h->asked) {
    case HELLO:
      lua_pushliteral(L, "ask_hello");
      if (!h->is_name) lua_pushboolean(L, 0); else if (h->name.size > 0) lua_pushstring(L, h->name.text); else lua_pushnil(L);
      if (h->id_size > 0) lua_pushlstring(L, (const char *)h->id, h->id_size); else lua_pushnil(L);
      return 4;
    case PSK:
      lua_pushliteral(L, "ask_psk");
      if (a->server)
        lua_pushlstring(L, (const char *)h->identity + IDENTITY_PREFIX, dtls_u16(h->identity));
      else
        lua_pushstring(L, hint);
      return 3;
    default: lua_pushliteral(L, "ask_verify"); return 2;
  }
}

static dtls_association *answering(lua_State *L, question q) {
  dtls_association *a = dtls_association_check(L);
  if (!a->callback || a->callback->asked != q) luaL_error(L, "nothing of the kind was asked");
  return a;
}

static int answered(dtls_association *a) {
  a->callback->answered |= 1u << a->callback->asked;
  a->callback->asked = NOTHING;
  return 0;
}

/*
 * association:answer_hello([context[, session]]) → true[, stale] | nil, err
 * The identity to use (nil: its own), and what the store had for the id. stale: nobody can resume that any more.
 */
static int answer_hello(lua_State *L) {
  dtls_association *a = answering(L, HELLO);
  SSL_CTX *ctx = lua_isnoneornil(L, 2) ? NULL : dtls_context_check(L, 2, true);
  size_t size;
  const char *blob = luaL_optlstring(L, 3, NULL, &size);
  ERR_clear_error();
  if (ctx && !dtls_context_adopt(a->ssl, ctx)) return dtls_error_openssl(L, "ERR_DTLS_CONFIG", "cannot use the context");
  a->callback->chosen = ctx != NULL;
  if (blob) a->callback->session = dtls_session_parse(blob, size);
  answered(a);
  lua_pushboolean(L, 1);
  lua_pushboolean(L, blob && !(a->callback->session && dtls_session_in_time(a->callback->session)));
  return 2;
}

/* association:refuse_hello(alert): 'unrecognized_name' or 'internal_error' */
static int refuse_hello(lua_State *L) {
  dtls_association *a = answering(L, HELLO);
  static const char *const names[] = {"unrecognized_name", "internal_error", NULL};
  a->callback->alert = luaL_checkoption(L, 2, NULL, names) == 0 ? SSL_AD_UNRECOGNIZED_NAME : SSL_AD_INTERNAL_ERROR;
  return answered(a);
}

static bool keep_psk(dtls_psk *psk, const char *identity, size_t identity_size, const char *key, size_t key_size) {
  psk->identity = OPENSSL_zalloc(identity_size + 1);
  if (psk->identity) psk->key = OPENSSL_memdup(key, key_size);
  if (!psk->key) return false;
  memcpy(psk->identity, identity, identity_size);
  psk->identity_size = identity_size;
  psk->key_size = key_size;
  return true;
}

/* association:answer_psk([key[, identity]]): a client says its identity; a server's key is for the one that was asked. No key: refused. */
static int answer_psk(lua_State *L) {
  dtls_association *a = answering(L, PSK);
  size_t key_size = 0, identity_size = 0;
  const char *key = luaL_optlstring(L, 2, NULL, &key_size), *identity = luaL_optlstring(L, 3, NULL, &identity_size);
  luaL_argcheck(L, !key || (key_size >= 1 && key_size <= PSK_MAX_PSK_LEN), 2, "a key has 1 to 512 bytes");
  luaL_argcheck(L, !key || a->server || (identity && identity_size <= DTLS_OWN_IDENTITY_MAX && strlen(identity) == identity_size), 3,
                "an identity has at most 255 bytes and no NUL among them");
  if (key && a->server) {
    identity = (const char *)a->callback->identity + IDENTITY_PREFIX;
    identity_size = dtls_u16(a->callback->identity);
  }
  if (key) a->callback->psk_failed = !keep_psk(&a->callback->psk, identity, identity_size, key, key_size);
  return answered(a);
}

/* association:refuse_psk(): whoever knows the keys has failed. A server's peer gets the alert internal_error. */
static int refuse_psk(lua_State *L) {
  dtls_association *a = answering(L, PSK);
  a->callback->psk_failed = true;
  return answered(a);
}

/* association:answer_verify(good[, strict]) → whether that ends the handshake. strict: a no does whatever its context says */
static int answer_verify(lua_State *L) {
  dtls_association *a = answering(L, VERIFY);
  a->callback->good = lua_toboolean(L, 2);
  a->peer.reject = a->peer.reject || lua_toboolean(L, 3);
  answered(a);
  lua_pushboolean(L, !a->callback->good && a->peer.reject && SSL_get_verify_mode(a->ssl) != SSL_VERIFY_NONE);
  return 1;
}

const luaL_Reg dtls_callback_methods[] = {{"answer_hello", answer_hello},
                                      {"refuse_hello", refuse_hello},
                                      {"answer_psk", answer_psk},
                                      {"refuse_psk", refuse_psk},
                                      {"answer_verify", answer_verify},
                                      {NULL, NULL}};
