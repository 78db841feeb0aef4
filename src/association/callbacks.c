/*
 * What only the application can answer: which identity a name has, a stored session, a pre-shared key, whether a good
 * certificate is good enough. The handshake is suspended until the answer comes, outside libssl: no Lua ever runs inside.
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
#include "association/queue.h"
#include "identity/context.h"
#include "identity/placeholder.h"
#include "identity/psk.h"
#include "identity/session.h"

enum {
  ID_MAX_SIZE = SSL_MAX_SSL_SESSION_ID_LENGTH,
  IDENTITY_PREFIX = 2 /* RFC 4279 §2: opaque psk_identity<0..2^16-1> */
};

/* Datagrams; a flight is shorter, and what does not fit is repeated by the peer. */
static const dtls_queue_limit KEPT_MAX = {.count = 32, .bytes = (size_t)32 * 1024};

struct dtls_callback {
  dtls_question asked; /* and not answered yet */
  unsigned answered;   /* bits: 1 << question */
  dtls_queue queue;    /* datagrams that wait for the answer, and those behind them */
  struct {
    dtls_name name;
    bool is_name; /* what was asked for, if anything */
    uint8_t id[ID_MAX_SIZE];
    size_t id_size;
    bool chosen; /* the answer was an identity for that name */
    int alert;   /* refused with it; -1: not refused */
    SSL_SESSION *session;
  } hello;
  struct {
    uint8_t identity[IDENTITY_PREFIX + PSK_MAX_IDENTITY_LEN]; /* as it is on the wire, gathered from fragments */
    uint8_t have[IDENTITY_PREFIX + PSK_MAX_IDENTITY_LEN];
    dtls_psk key;
    bool failed; /* the application's psk function has failed: it has no key to give and no reason to refuse */
  } psk;
  bool good; /* the certificate */
};

/* ── life ── */

static dtls_callback *need(dtls_association *a) {
  if (!a->callback && (a->callback = OPENSSL_zalloc(sizeof *a->callback))) a->callback->hello.alert = -1;
  return a->callback;
}

void dtls_callback_free(dtls_association *a) {
  dtls_callback *c = a->callback;
  if (!c) return;
  a->callback = NULL;
  dtls_queue_clear(&c->queue);
  SSL_SESSION_free(c->hello.session);
  OPENSSL_free(c->psk.key.identity);
  OPENSSL_clear_free(c->psk.key.key, c->psk.key.key_size);
  OPENSSL_free(c);
}

/* A peer is the first member of its association. */
static dtls_association *of_peer(dtls_peer *peer) { return (dtls_association *)peer; }

dtls_question dtls_callback_asked(const dtls_association *a) {
  return a->callback ? a->callback->asked : DTLS_ASK_NOTHING;
}

static bool has_answer(const dtls_association *a, dtls_question q) {
  return a->callback && a->callback->answered >> q & 1;
}

/* ── datagrams that wait ── */

void dtls_callback_keep(dtls_association *a, const uint8_t *data, size_t size) {
  if (!dtls_queue_add(&a->callback->queue, KEPT_MAX, NULL, 0, data, size)) DTLS_DROP(a, QUEUE);
}

bool dtls_callback_pending(const dtls_association *a) {
  return a->callback && a->callback->asked == DTLS_ASK_NOTHING && a->callback->queue.oldest;
}

/* One that libssl has no room for is dropped: cut, it would no longer be what the record filter has looked at. */
size_t dtls_callback_next(dtls_association *a, uint8_t *out, size_t capacity) {
  dtls_queue *q = &a->callback->queue;
  size_t size = 0;
  while (q->oldest && size == 0) {
    if (q->oldest->size <= capacity) {
      size = q->oldest->size;
      memcpy(out, q->oldest->data, size);
    } else {
      DTLS_DROP(a, LENGTH);
    }
    dtls_queue_remove(q, q->oldest);
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
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &p, &total) != 1 || total < LIST_PREFIX + ENTRY_PREFIX)
    return true;
  size_t length = dtls_u16(p + LIST_PREFIX + 1);
  if (p[LIST_PREFIX] != TLSEXT_NAMETYPE_host_name || length > total - LIST_PREFIX - ENTRY_PREFIX) return true;
  return dtls_name_of_client_untrusted((const char *)p + LIST_PREFIX + ENTRY_PREFIX, length, out);
}

static int ask_hello(SSL *ssl, dtls_association *a, const dtls_name *name, bool good) {
  dtls_callback *c = need(a);
  const unsigned char *id;
  if (!c) return SSL_CLIENT_HELLO_ERROR;
  c->hello.name = *name;
  c->hello.is_name = good;
  c->hello.id_size = SSL_client_hello_get0_session_id(ssl, &id);
  if (c->hello.id_size > ID_MAX_SIZE) c->hello.id_size = 0;
  if (c->hello.id_size > 0) memcpy(c->hello.id, id, c->hello.id_size);
  c->asked = DTLS_ASK_HELLO;
  return SSL_CLIENT_HELLO_RETRY;
}

static int on_hello(SSL *ssl, int *alert, void *argument) {
  dtls_association *a = dtls_association_of(ssl);
  dtls_name name;
  bool good = find_name_untrusted(ssl, &name);
  (void)argument;
  if (a->asks_hello && !has_answer(a, DTLS_ASK_HELLO)) return ask_hello(ssl, a, &name, good);
  if (a->callback && a->callback->hello.alert >= 0) {
    *alert = a->callback->hello.alert;
    return SSL_CLIENT_HELLO_ERROR;
  }
  return dtls_placeholder_use_untrusted(ssl) && dtls_session_bind(ssl, name.text, name.size) ? SSL_CLIENT_HELLO_SUCCESS
                                                                                             : SSL_CLIENT_HELLO_ERROR;
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
  if (a->callback && a->callback->hello.chosen) return SSL_TLSEXT_ERR_OK;
  if (name && !SSL_session_reused(ssl) && SSL_SESSION_set1_hostname(SSL_get0_session(ssl), name) != 1)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  return SSL_TLSEXT_ERR_NOACK;
}

void dtls_callback_prepare(SSL_CTX *ctx) {
  SSL_CTX_set_client_hello_cb(ctx, on_hello, NULL);
  SSL_CTX_set_tlsext_servername_callback(ctx, on_servername);
}

static SSL_SESSION *take_session(dtls_peer *peer, const uint8_t *id, size_t size) {
  dtls_callback *c = of_peer(peer)->callback;
  if (!c || !c->hello.session) return NULL;
  unsigned found_size;
  const unsigned char *found = SSL_SESSION_get_id(c->hello.session, &found_size);
  if (found_size != size || memcmp(found, id, size) != 0) return NULL;
  SSL_SESSION *session = c->hello.session;
  c->hello.session = NULL;
  return session;
}

/* ── the pre-shared key ── */

/* Takes in what a fragment of ClientKeyExchange says of the identity. */
static void gather_untrusted(dtls_callback *c, const uint8_t *fragment) {
  size_t offset = dtls_u24(fragment + 6), size = dtls_u24(fragment + 9);
  for (size_t i = 0; i < size && offset + i < sizeof c->psk.identity; i++) {
    c->psk.identity[offset + i] = fragment[DTLS_HANDSHAKE_HEADER + i];
    c->psk.have[offset + i] = 1;
  }
}

/* Longer ones are never complete; libssl refuses them itself. */
static bool is_complete(const dtls_callback *c) {
  size_t end = IDENTITY_PREFIX + (size_t)dtls_u16(c->psk.identity);
  return c->psk.have[0] && c->psk.have[1] && end <= sizeof c->psk.identity && !memchr(c->psk.have, 0, end);
}

bool dtls_callback_untrusted(dtls_association *a, const uint8_t *record, size_t size) {
  const uint8_t *message = record + DTLS_RECORD_HEADER;
  if (!dtls_config_of_ssl(a->ssl)->psk.asks || has_answer(a, DTLS_ASK_PSK) || !dtls_psk_suite(a->ssl)) return false;
  if (message[0] != (a->server ? SSL3_MT_CLIENT_KEY_EXCHANGE : SSL3_MT_SERVER_DONE) || !need(a)) return false;
  if (a->server) {
    gather_untrusted(a->callback, message);
    if (!is_complete(a->callback)) return false;
  }
  a->callback->asked = DTLS_ASK_PSK;
  if (!dtls_queue_add_oldest(&a->callback->queue, KEPT_MAX, record, size)) DTLS_DROP(a, QUEUE);
  return true;
}

static const dtls_psk *psk_for(const dtls_peer *peer, bool *failed) {
  const dtls_association *a = (const dtls_association *)peer;
  bool has = has_answer(a, DTLS_ASK_PSK); /* no: there was no memory for the question */
  *failed = *failed || !has || a->callback->psk.failed;
  return has && a->callback->psk.key.key ? &a->callback->psk.key : NULL;
}

/* ── a server's certificate ── */

static dtls_answer ask_verify(dtls_peer *peer) {
  dtls_association *a = of_peer(peer);
  if (has_answer(a, DTLS_ASK_VERIFY)) return a->callback->good ? DTLS_YES : DTLS_NO;
  if (!need(a)) return DTLS_NO;
  a->callback->asked = DTLS_ASK_VERIFY;
  return DTLS_UNANSWERED;
}

const dtls_questions dtls_callback_questions = {.verify = ask_verify, .psk = psk_for, .session = take_session};

/* ── what is asked ── */

const char *dtls_callback_unanswered(const dtls_association *a) {
  switch (dtls_callback_asked(a)) {
    case DTLS_ASK_HELLO: return "SNICallback or sessionStore";
    case DTLS_ASK_PSK: return "psk";
    case DTLS_ASK_VERIFY: return "checkServerIdentity";
    default: return NULL;
  }
}

const dtls_name *dtls_callback_name(const dtls_association *a) {
  return a->callback && a->callback->hello.name.size > 0 ? &a->callback->hello.name : NULL;
}

bool dtls_callback_is_name(const dtls_association *a) { return a->callback->hello.is_name; }

const uint8_t *dtls_callback_session_id(const dtls_association *a, size_t *size) {
  *size = a->callback->hello.id_size;
  return *size > 0 ? a->callback->hello.id : NULL;
}

const char *dtls_callback_identity(const dtls_association *a, size_t *size) {
  if (!a->server || !a->callback || !is_complete(a->callback)) return NULL;
  *size = dtls_u16(a->callback->psk.identity);
  return (const char *)a->callback->psk.identity + IDENTITY_PREFIX;
}

/* ── answers ── */

static void answered(dtls_association *a) {
  a->callback->answered |= 1u << a->callback->asked;
  a->callback->asked = DTLS_ASK_NOTHING;
}

bool dtls_callback_answer_hello(dtls_association *a, SSL_CTX *ctx, const char *session, size_t size, bool *stale,
                                dtls_failure *f) {
  ERR_clear_error();
  if (ctx && !dtls_context_adopt(a->ssl, ctx)) return dtls_fail_openssl(f, "ERR_DTLS_CONFIG", "cannot use the context");
  a->callback->hello.chosen = ctx != NULL;
  if (session) a->callback->hello.session = dtls_session_parse(session, size);
  *stale = session && !(a->callback->hello.session && dtls_session_in_time(a->callback->hello.session));
  answered(a);
  return true;
}

void dtls_callback_refuse_hello(dtls_association *a, int alert) {
  a->callback->hello.alert = alert;
  answered(a);
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

void dtls_callback_answer_psk(dtls_association *a, const char *identity, size_t identity_size, const char *key,
                              size_t key_size) {
  if (key && a->server) identity = dtls_callback_identity(a, &identity_size);
  if (key) a->callback->psk.failed = !keep_psk(&a->callback->psk.key, identity, identity_size, key, key_size);
  answered(a);
}

void dtls_callback_refuse_psk(dtls_association *a) {
  a->callback->psk.failed = true;
  answered(a);
}

bool dtls_callback_answer_verify(dtls_association *a, bool good, bool strict) {
  a->callback->good = good;
  a->peer.reject = a->peer.reject || strict;
  answered(a);
  return !good && a->peer.reject && SSL_get_verify_mode(a->ssl) != SSL_VERIFY_NONE;
}
