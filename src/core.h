/*
 * Annotated index of the C core. Who owns what:
 *
 *   endpoint ──owns──> batch, stash, cookies, path table, the association in waiting
 *   path     ──owns──> the peer socket (connected strategy); lives as long as an association is on it
 *   association ─owns─> its SSL, and through it screen BIO and dgram BIO; holds a reference on its endpoint
 *   context  ──owns──> one reference on an SSL_CTX; what our callbacks need hangs on that SSL_CTX
 *
 * A function whose name ends in _untrusted reads bytes that anybody may have sent: it takes (pointer, length),
 * never reads past them, and can only say "no".
 */
#ifndef DTLS_CORE_H
#define DTLS_CORE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <lauxlib.h>
#include <lua.h>

#include "openssl.h"

/* ── records: the wire format that more than one file looks at (RFC 6347 §4.1, §4.2.2) ───────────────────── */

enum {
  DTLS_RECORD_HEADER = 13,
  DTLS_HANDSHAKE_HEADER = 12,
  DTLS_RANDOM_SIZE = 32,
  DTLS_COOKIE_SIZE = 32,
  DTLS_MESSAGE_MAX = 16384,              /* plaintext of one record, RFC 6347 §4.1 */
  DTLS_RECORD_MAX = 16384 + 2048,        /* its ciphertext */
  DTLS_DATAGRAM_MAX = 13 + 16384 + 2048, /* the largest datagram that libssl can read in one piece */
  DTLS_DEFAULT_MTU = 1228,               /* UDP payload that every known peer can receive */
  DTLS_DRAIN_MAX = 4096                  /* datagrams that may have queued up in a socket before it was connected */
};

static inline uint16_t dtls_u16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t dtls_u24(const uint8_t *p) { return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]; }
static inline uint16_t dtls_record_epoch(const uint8_t *record) { return dtls_u16(record + 3); }
static inline size_t dtls_record_size(const uint8_t *record) { return DTLS_RECORD_HEADER + (size_t)dtls_u16(record + 11); }

/* ── counters ────────────────────────────────────────────────────────────────────────────────────────────── */

/* Why a datagram or record was dropped: constant, name in stats().drops. */
#define DTLS_DROP_REASONS(X) \
  X(EMPTY, "empty")               /* no bytes at all */ \
  X(SHORT, "short")               /* less than a record header */ \
  X(TYPE, "type")                 /* content type that DTLS 1.2 does not have */ \
  X(VERSION, "version")           /* record version that is not DTLS 1.x */ \
  X(LENGTH, "length")             /* length field that says more than there is, or more than is allowed */ \
  X(UNDERSIZED, "undersized")     /* protected record shorter than nonce and tag */ \
  X(UNPROTECTED, "unprotected")   /* application data in epoch 0 */ \
  X(HANDSHAKE, "handshake")       /* plaintext handshake record or ChangeCipherSpec that cannot be genuine */ \
  X(ALERT, "alert")               /* unauthenticated alert; a fatal one is remembered, see association.c */ \
  X(EARLY, "early")               /* more protected records before the keys exist than a flight can hold */ \
  X(EPOCH, "epoch")               /* an epoch that never exists without renegotiation */ \
  X(REPLAY, "replay")             /* an association's own hello, again, after it completed */ \
  X(HELLO, "hello")               /* malformed ClientHello, or one cut before its cipher suites end */ \
  X(STRANGER, "stranger")         /* not a hello, from an address without an association */ \
  X(STASH, "stash")               /* no room left to re-dispatch it */ \
  X(AGAIN, "EAGAIN")              /* outgoing: the socket's send buffer was full */ \
  X(NOBUFS, "ENOBUFS")            /* outgoing: the interface's queue was full */ \
  X(MSGSIZE, "EMSGSIZE")          /* outgoing: larger than the interface takes */ \
  X(REFUSED, "ECONNREFUSED")      /* ICMP port unreachable, in or out */ \
  X(UNREACHABLE, "EHOSTUNREACH")  /* ICMP or routing failure other than that */

typedef enum {
#define X(id, name) DTLS_DROP_##id,
  DTLS_DROP_REASONS(X)
#undef X
  DTLS_DROP_COUNT
} dtls_drop;

typedef struct {
  uint64_t datagrams_in, datagrams_out, bytes_in, bytes_out; /* UDP payloads, as on the wire */
  uint64_t messages_in, messages_out;                        /* application messages */
  uint64_t retransmits;                                      /* flights repeated by our timer */
  uint64_t drops[DTLS_DROP_COUNT];
} dtls_counters;

void dtls_counters_push(lua_State *L, const dtls_counters *counters); /* pushes a table, core.c */

/* ── error.c: OpenSSL's queue and errno as error objects ─────────────────────────────────────────────────── */

void dtls_error_init(lua_State *L);
/* Each pushes nil and an error object {code, message[, reason][, alert]} and returns 2. */
int dtls_error(lua_State *L, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int dtls_error_system(lua_State *L, int number, const char *what);
int dtls_error_alert(lua_State *L, int description);
int dtls_error_certificate(lua_State *L, long verify_result);
int dtls_error_openssl(lua_State *L, const char *code, const char *what); /* the oldest entry of the queue; clears it */
const char *dtls_error_verify_name(long verify_result);
int dtls_error_new(lua_State *L); /* core.error(code, message[, fields]) */

/* ── udp.c: sockets and addresses ────────────────────────────────────────────────────────────────────────── */

typedef union {
  struct sockaddr sa;
  struct sockaddr_in v4;
  struct sockaddr_in6 v6;
} dtls_address;

/* One received datagram. The bytes belong to whoever received it. */
typedef struct {
  const uint8_t *data;
  size_t size;
  dtls_address local, peer;
} dtls_datagram;

typedef struct dtls_batch dtls_batch; /* room for one recvmmsg */

socklen_t dtls_address_size(const dtls_address *address);
bool dtls_address_equal(const dtls_address *a, const dtls_address *b);
/* IPv6 form (IPv4 mapped) and port in network order, 18 bytes: what cookies and hashes are made of. */
void dtls_address_bytes(const dtls_address *address, uint8_t out[18]);
void dtls_address_push(lua_State *L, const dtls_address *address); /* {ip=, port=, family=} */
BIO_ADDR *dtls_address_to_bio(const dtls_address *address);        /* NULL: out of memory; the caller frees it */

int dtls_udp_fd(lua_State *L, int index); /* checked; pushes nil, err and returns -1 on failure */
int dtls_udp_fd_lua(lua_State *L);        /* core.fd(handle) */
int dtls_udp_socket_lua(lua_State *L);    /* core.configure_socket(fd, options) */
void dtls_udp_announce_errors(int fd); /* a pending error (ICMP) then is an ordinary event for a poll on POLLPRI */
bool dtls_udp_local(int fd, dtls_address *out);
bool dtls_udp_peer(int fd, dtls_address *out);
/* A non-blocking socket bound to local and connected to peer; -1 and errno on failure. */
int dtls_udp_peer_socket(const dtls_address *local, const dtls_address *peer);
ssize_t dtls_udp_send(int fd, const dtls_address *local, const dtls_address *peer, const void *data, size_t size);

dtls_batch *dtls_batch_new(void);
void dtls_batch_free(dtls_batch *batch);
bool dtls_batch_receive(dtls_batch *batch, int fd, const dtls_address *bound); /* false: nothing there */
bool dtls_batch_pending(const dtls_batch *batch);
bool dtls_batch_next(dtls_batch *batch, dtls_datagram *out);

/* ── context.c: SSL_CTX ──────────────────────────────────────────────────────────────────────────────────── */

void dtls_context_init(lua_State *L);
SSL_CTX *dtls_context_check(lua_State *L, int index, bool server);
int dtls_context_new(lua_State *L);     /* core.context(role, options) */
int dtls_selfsigned(lua_State *L);      /* core.self_signed(options), selfsigned.c */
bool dtls_selfsigned_ec(X509 **cert, EVP_PKEY **key); /* a nameless P-256 pair; the caller frees both, whatever is returned */

/* ── cookie.c: stateless cookies (RFC 6347 §4.2.1) ───────────────────────────────────────────────────────── */

typedef struct dtls_cookies dtls_cookies;
typedef struct dtls_hello dtls_hello;

dtls_cookies *dtls_cookies_new(void); /* random secret, rotated by itself until one is set; NULL: failure */
void dtls_cookies_free(dtls_cookies *cookies);
bool dtls_cookies_set(dtls_cookies *cookies, const void *current, size_t size, const void *previous, size_t previous_size);
bool dtls_cookies_make(dtls_cookies *cookies, const dtls_address *peer, const dtls_hello *hello, uint8_t out[DTLS_COOKIE_SIZE]);
bool dtls_cookies_verify(dtls_cookies *cookies, const dtls_address *peer, const dtls_hello *hello);

/* ── hello.c: what a ClientHello is, and what it gets ────────────────────────────────────────────────────── */

struct dtls_hello {
  const uint8_t *version; /* 2 bytes */
  const uint8_t *random;  /* DTLS_RANDOM_SIZE bytes */
  const uint8_t *session, *cookie, *suites;
  size_t session_size, cookie_size, suites_size;
};

/* True for the first fragment of a ClientHello, complete up to its cipher suites. */
bool dtls_hello_parse_untrusted(const uint8_t *data, size_t size, dtls_hello *out);

typedef struct dtls_association dtls_association;
typedef struct dtls_endpoint dtls_endpoint;
typedef struct dtls_path dtls_path;

void dtls_hello_callbacks(SSL_CTX *ctx);
/* Runs the datagram in hand through libssl on the association in waiting: dropped, answered, or (true) verified.
   Nothing is kept of it unless it is verified. */
bool dtls_hello_untrusted(dtls_endpoint *ep);

/* ── path.c: the quartet (local, peer) and the associations on it ────────────────────────────────────────── */

struct dtls_path {
  dtls_endpoint *endpoint; /* NULL for a client */
  dtls_address local, peer;
  int fd;                      /* the peer socket (its own), or the client's; -1 when the endpoint's socket is shared */
  uint64_t seed;               /* of the table that it is in */
  dtls_association *current;   /* reads the socket, if there is one of its own */
  dtls_association *successor; /* a parallel handshake (RFC 6347 §4.2.8) */
};

/* Where a datagram on a path belongs. BOTH: only the keys can tell. */
typedef enum { DTLS_TO_NOBODY, DTLS_TO_CURRENT, DTLS_TO_SUCCESSOR, DTLS_TO_BOTH, DTLS_TO_HELLO } dtls_destination;

dtls_path *dtls_path_new(dtls_endpoint *ep, const dtls_address *local, const dtls_address *peer, int fd);
void dtls_path_free(dtls_path *path); /* for a path that no association is on; others go with their last one */
dtls_destination dtls_path_classify_untrusted(const dtls_path *path, const uint8_t *data, size_t size);
void dtls_path_attach(dtls_path *path, dtls_association *a);
/* Takes an association off its path. Returns the one that now is the current one because of it, or NULL. */
dtls_association *dtls_path_detach(dtls_association *a);

typedef struct dtls_paths dtls_paths; /* the table: (local, peer) → path */
dtls_paths *dtls_paths_new(void);
void dtls_paths_free(dtls_paths *paths);
bool dtls_paths_add(dtls_paths *paths, dtls_path *path);
void dtls_paths_remove(dtls_paths *paths, dtls_path *path);
dtls_path *dtls_paths_find(const dtls_paths *paths, const dtls_address *local, const dtls_address *peer);

/* ── screen.c: the filter BIO between libssl and the dgram BIO ───────────────────────────────────────────── */

BIO *dtls_screen_new(dtls_association *a);
/* Removes from a datagram, in place, every record that can only do harm; returns what is left. */
size_t dtls_screen_filter_untrusted(dtls_association *a, uint8_t *data, size_t size);

/* The shortest protected record of the suite in use or about to be: nonce and tag. 0: no suite yet. */
size_t dtls_screen_protected_min(const SSL *ssl);

/* ── association.c: one SSL ──────────────────────────────────────────────────────────────────────────────── */

struct dtls_association {
  SSL *ssl;
  BIO *dgram; /* owned by ssl */
  dtls_endpoint *endpoint; /* NULL for a client */
  dtls_path *path;         /* NULL while waiting for a hello, and once closed */
  int owner;               /* reference of its Lua owner in the endpoint's table, or LUA_NOREF */
  bool server, open;
  bool buffered;           /* libssl holds record buffers for it (open ones only) */
  bool reads_socket;       /* false: only datagrams handed in are read */
  const uint8_t *datagram; /* handed in; valid until the endpoint takes its next one */
  size_t datagram_size;
  uint8_t random[DTLS_RANDOM_SIZE]; /* of the hello that made it (server) */
  size_t mtu;                       /* UDP payload; caps every datagram */
  size_t data_mtu, protected_min;   /* once open */
  unsigned early;                   /* protected records seen before the handshake completed */
  unsigned timeouts;                /* in a row */
  unsigned first_timeout, next_timeout; /* ms; next 0: double the last */
  unsigned interval;                    /* ms, the one that runs */
  int write_error;                  /* errno of the last datagram that did not leave */
  /* An unauthenticated sign that the handshake is futile: an alert (≥ 0) or an errno. It counts when nothing
     valid follows within one retransmission interval, since anybody can forge it. */
  int suspect_alert, suspect_errno;
  OSSL_HANDSHAKE_STATE suspect_state; /* of the handshake when it was seen */
  uint64_t suspect_deadline; /* ms, 0: none */
  dtls_counters counters;
};

void dtls_association_init(lua_State *L);
int dtls_association_client(lua_State *L); /* core.client(context, fd[, servername]) */
dtls_association *dtls_association_new(SSL_CTX *ctx, dtls_endpoint *ep, int fd);
void dtls_association_free(dtls_association *a);
void dtls_association_push(lua_State *L, dtls_association *a); /* the userdata takes over ownership */
bool dtls_association_set_peer(dtls_association *a, dtls_path *path);
void dtls_association_release(dtls_association *a); /* its record buffers, until they are needed again */
void dtls_association_suspect(dtls_association *a, int alert, int number);
void dtls_association_clear_suspicion(dtls_association *a);
static inline dtls_association *dtls_association_of(const SSL *ssl) { return SSL_get_app_data(ssl); }

/* ── endpoint.c: the listening socket; every datagram of a server that no peer socket took ───────────────── */

struct dtls_endpoint {
  unsigned refs; /* the userdata and one per association */
  int fd;        /* borrowed; -1 once closed */
  bool shared;   /* the shared demux strategy */
  dtls_address bound;
  SSL_CTX *ctx;
  dtls_cookies *cookies;
  dtls_paths *paths;
  dtls_batch *batch;
  struct dtls_stashed *stash, **stash_end; /* copies that wait to be dispatched again, a FIFO */
  size_t stash_count;
  struct dtls_stashed *held; /* the stash entry that `hand` points into */
  dtls_datagram hand;        /* the datagram in hand */
  bool hand_again;           /* it has been to the current association, the successor is next */
  dtls_association *reader;  /* the association it was handed to */
  dtls_association *waiting; /* the one listening SSL */
  dtls_hello hello;          /* of the datagram in hand, while libssl looks at it */
  bool verified;             /* waiting holds a verified hello that accept() may take */
  bool answered;             /* libssl answered the hello in hand */
  BIO_ADDR *scratch;         /* DTLSv1_listen insists on telling the peer; we know it */
  struct {
    uint64_t hellos, cookies_sent, cookies_accepted, cookies_refused;
  } stats;
  dtls_counters counters;
};

void dtls_endpoint_init(lua_State *L);
int dtls_endpoint_new(lua_State *L); /* core.endpoint(context, fd, demux) */
void dtls_endpoint_unref(dtls_endpoint *ep);
/* Copies a datagram for later dispatch. seen: the path's current association has had it. */
void dtls_endpoint_stash(dtls_endpoint *ep, const dtls_path *path, const dtls_address *peer, const uint8_t *data, size_t size, bool seen);

/* Counts on the association and, for a server, on its endpoint. */
#define DTLS_COUNT(a, field, n) \
  do { \
    (a)->counters.field += (n); \
    if ((a)->endpoint) (a)->endpoint->counters.field += (n); \
  } while (0)
#define DTLS_DROP(a, reason) DTLS_COUNT(a, drops[DTLS_DROP_##reason], 1)

/* ── linkage.c: which OpenSSL this is ────────────────────────────────────────────────────────────────────── */

/* "static" (inside the module), "host" (exported by the executable) or "shared". */
const char *dtls_linkage_name(void);
/* NULL when the OpenSSL in use is one usable copy, else a sentence (written to buf): what is wrong, what to do. */
const char *dtls_linkage_check(char *buf, size_t size);

/* ── shared helpers, core.c ──────────────────────────────────────────────────────────────────────────────── */

uint64_t dtls_now(void); /* ms, monotonic */
void dtls_register(lua_State *L, const char *type, const luaL_Reg *methods); /* makes the metatable of a type */
void *dtls_check(lua_State *L, int index, const char *type); /* the object in a box of ours; raises for another or a closed one */
/* An integer option of the table at index: its value, or fallback when absent; raises outside [min, max]. */
long dtls_option_integer(lua_State *L, int index, const char *name, long fallback, long min, long max);

#endif
