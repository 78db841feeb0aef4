/*
 * Annotated index of the C core. Who owns what:
 *
 *   endpoint ──owns──> batch, stash, cookies, path table
 *   path     ──owns──> the peer socket (connected strategy) or a client's duplicate of the caller's; lives as long as an
 *                      association is on it
 *   association ─owns─> its SSL, and through it screen BIO and dgram BIO; what waits for an answer (hold) or for its
 *                       turn (flight); holds a reference on its endpoint
 *   context  ──owns──> one reference on an SSL_CTX; its configuration hangs on that SSL_CTX
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
#include <time.h>

#include <lauxlib.h>
#include <lua.h>

#include "openssl.h"

/* What Lua 5.2 and later lack: weak, so that there, too, the module can be opened and say why it does not run (core.c). */
#pragma weak luaL_register
#pragma weak lua_insert
#pragma weak lua_newuserdata
#pragma weak lua_objlen
#pragma weak lua_pcall
#pragma weak lua_remove
#pragma weak lua_replace
#pragma weak lua_tointeger
#pragma weak lua_tonumber

/* Lua's header does not say that this one never returns. */
_Noreturn int luaL_error(lua_State *L, const char *format, ...);

typedef struct dtls_association dtls_association;
typedef struct dtls_endpoint dtls_endpoint;
typedef struct dtls_path dtls_path;
typedef struct dtls_box dtls_box;
typedef struct dtls_other dtls_other;

/* ── records: the wire format that more than one file looks at (RFC 6347 §4.1, §4.2.2) ───────────────────── */

enum {
  DTLS_RECORD_HEADER = 13,
  DTLS_HANDSHAKE_HEADER = 12,
  DTLS_RANDOM_SIZE = 32,
  DTLS_COOKIE_SIZE = 32,
  DTLS_HELLOS_MAX = 8, /* of one client, each with a cookie whose secret had gone when it came but the last */
  DTLS_HANDSHAKE_MESSAGE_MAX = 32 * 1024, /* that a server takes: certificates, and ClientHellos (SSL_CTX_set_max_cert_list) */
  DTLS_MESSAGE_MAX = 16384,              /* plaintext of one record, RFC 6347 §4.1 */
  DTLS_RECORD_MAX = 16384 + 2048,        /* its ciphertext */
  DTLS_DATAGRAM_MAX = 13 + 16384 + 2048, /* the largest datagram that libssl can read in one piece */
  DTLS_DEFAULT_MTU = 1228,               /* UDP payload that every known peer can receive */
  DTLS_READS_MAX = 64,                   /* datagrams of one socket, before the event loop gets its turn */
  DTLS_DRAIN_MAX = 4096                  /* datagrams that may have queued up in a socket before it was connected */
};

static inline uint16_t dtls_u16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }
static inline uint32_t dtls_u24(const uint8_t *p) { return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]; }
static inline uint16_t dtls_record_epoch(const uint8_t *record) { return dtls_u16(record + 3); }
static inline uint64_t dtls_record_number(const uint8_t *record) { return (uint64_t)dtls_u24(record + 5) << 24 | dtls_u24(record + 8); }
static inline size_t dtls_record_size(const uint8_t *record) { return DTLS_RECORD_HEADER + (size_t)dtls_u16(record + 11); }

/* ── counters ────────────────────────────────────────────────────────────────────────────────────────────── */

/* Why a datagram or record was dropped: constant, name in stats().drops. */
#define DTLS_DROP_REASONS(X) \
  X(EMPTY, "empty")               /* a datagram without bytes, or an authentic record without data; from OpenSSL 3.2 on that is INVALID */ \
  X(SHORT, "short")               /* less than a record header */ \
  X(TYPE, "type")                 /* content type that DTLS 1.2 does not have */ \
  X(VERSION, "version")           /* record version that is not DTLS 1.x */ \
  X(LENGTH, "length")             /* length field that says more than there is, or more than is allowed */ \
  X(UNDERSIZED, "undersized")     /* protected record shorter than nonce and tag */ \
  X(UNPROTECTED, "unprotected")   /* application data in epoch 0 */ \
  X(HANDSHAKE, "handshake")       /* handshake record or ChangeCipherSpec that cannot be genuine */ \
  X(ALERT, "alert")               /* unauthenticated alert; a fatal one is remembered, see association.c */ \
  X(EARLY, "early")               /* protected record before a suite is chosen, or before ChangeCipherSpec and not Finished */ \
  X(EPOCH, "epoch")               /* an epoch that is over, or never exists without renegotiation */ \
  X(REPLAY, "replay")             /* a handshake message that has been read, or an open association's own hello */ \
  X(INVALID, "invalid")           /* protected data that is forged, altered, or has been read */ \
  X(HELLO, "hello")               /* malformed ClientHello, or one cut before its cipher suites end */ \
  X(PACE, "pace")                 /* verified hello within a retransmission interval of the last handshake its sender began */ \
  X(STRANGER, "stranger")         /* not a hello, from an address without an association */ \
  X(STASH, "stash")               /* no room or memory to keep it until its turn, or until it is dispatched again */ \
  X(OVERFLOWED, "overflow")       /* a datagram that the kernel dropped: the socket's receive buffer was full (or its checksum was wrong) */ \
  X(AGAIN, "EAGAIN")              /* outgoing: the socket's send buffer was full, or a signal came */ \
  X(NOBUFS, "ENOBUFS")            /* outgoing: the interface's queue was full; or no memory, for a hello, too */ \
  X(MSGSIZE, "EMSGSIZE")          /* outgoing: larger than the path takes, as far as the system knows it */ \
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
/* Each pushes nil and an error object {code, message[, reason][, alert]} and returns 2. The message is bounded: what comes
   from the network may be in it, as dtls_error_push_text makes it. */
int dtls_error(lua_State *L, const char *code, const char *format, ...) __attribute__((format(printf, 3, 4)));
int dtls_error_system(lua_State *L, int number, const char *what);
int dtls_error_alert(lua_State *L, int description);
int dtls_error_warning(lua_State *L, int description); /* an alert that should not, but did end an association */
/* detail: what was wanted and what came, or NULL. */
int dtls_error_certificate(lua_State *L, long verify_result, const char *detail);
/* The error on top also tells of an alert (≥ 0), else of an errno, that nobody has authenticated and that was not believed. */
void dtls_error_add_seen(lua_State *L, int alert, int number);
/* Pushes bytes of anybody for a message: in quotes, without anything that is not printable, cut where they are long. */
void dtls_error_push_text(lua_State *L, const char *bytes, size_t size);
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
/* What cookies and hashes are made of: the IPv6 form (IPv4 mapped) and the port, in network order, and the scope id, which
   tells the links apart that have one link-local address. */
enum { DTLS_ADDRESS_BYTES = 16 + 2 + 4 };
void dtls_address_bytes(const dtls_address *address, uint8_t out[DTLS_ADDRESS_BYTES]);
uint64_t dtls_address_hash(uint64_t seed, const dtls_address *local, const dtls_address *peer);
void dtls_address_push(lua_State *L, const dtls_address *address); /* {ip=, port=, family=} */
bool dtls_address_parse(const char *ip, unsigned port, int family, dtls_address *out); /* of a socket of that family */
void dtls_address_push_host(lua_State *L, const dtls_address *address); /* bytes that say whose it is */
BIO_ADDR *dtls_address_to_bio(const dtls_address *address);        /* NULL: out of memory; the caller frees it */

int dtls_udp_fd(lua_State *L, int index); /* checked; pushes nil, err and returns -1 on failure */
int dtls_udp_fd_lua(lua_State *L);        /* core.fd(handle) */
int dtls_udp_socket_lua(lua_State *L);    /* core.configure_socket(fd, options) */

/* Bytes, as SO_RCVBUF and SO_SNDBUF count them; 0: as the system makes them. */
typedef struct {
  int receive, send;
} dtls_buffers;

dtls_buffers dtls_udp_take_buffers(lua_State *L, int index); /* receive_buffer and send_buffer of the table there */
void dtls_udp_push_buffers(lua_State *L, int fd); /* sets recvBufferSize and sendBufferSize of the table on top */
/* How many datagrams the kernel has dropped at the socket since the count that seen has, which is brought up to date. */
uint32_t dtls_udp_overflow(int fd, uint32_t *seen);
int dtls_udp_duplicate(int fd); /* another descriptor of the same socket; -1 and errno on failure */
void dtls_udp_announce_errors(int fd); /* a pending error (ICMP) then is an event for a poll on POLLPRI, and none is queued */
bool dtls_udp_local(int fd, dtls_address *out);
bool dtls_udp_peer(int fd, dtls_address *out);
/* A non-blocking socket bound to local and connected to peer, otherwise like the listening one; -1 and errno on failure. */
int dtls_udp_peer_socket(int listening, const dtls_address *local, const dtls_address *peer, dtls_buffers buffers);
ssize_t dtls_udp_send(int fd, const dtls_address *local, const dtls_address *peer, const void *data, size_t size);
ssize_t dtls_udp_receive(int fd, void *data, size_t capacity, dtls_address *sender); /* recvfrom(2), which never waits */

dtls_batch *dtls_batch_new(void);
void dtls_batch_free(dtls_batch *batch);
bool dtls_batch_receive(dtls_batch *batch, int fd, const dtls_address *bound); /* false: errno says why */
bool dtls_batch_pending(const dtls_batch *batch);
bool dtls_batch_next(dtls_batch *batch, dtls_datagram *out);

/* ── context.c: SSL_CTX and its configuration ────────────────────────────────────────────────────────────── */

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

int dtls_selfsigned(lua_State *L); /* core.self_signed(options), selfsigned.c */
/* type: as for core.self_signed, or a curve ("P-384"). Uses the key if there is one. The caller frees both, whatever is returned. */
bool dtls_selfsigned_nameless(const char *type, X509 **cert, EVP_PKEY **key);

/* ── opener.c: EdDSA and RSA-PSS keys, which libssl takes for DTLS only beside others ────────────────────── */

enum { DTLS_KEY_ED25519 = 1, DTLS_KEY_ED448 = 2, DTLS_KEY_EC = 4, DTLS_KEY_RSA_PSS = 8, DTLS_KEY_RSA = 16 };

void dtls_opener_note(dtls_config *c, const EVP_PKEY *key); /* a real key of the configuration */
const char *dtls_opener_take(SSL_CTX *ctx, dtls_config *c, const char *sigalgs); /* after the real keys */
void dtls_opener_free(dtls_config *c);
bool dtls_opener_needed(const dtls_config *c); /* then what it signs with is not for others to set */
bool dtls_opener_use_untrusted(SSL *ssl);      /* for the hello that libssl is looking at */

/* ── settings.c: OpenSSL's setters, for a context or for one association ─────────────────────────────────── */

typedef struct {
  SSL_CTX *ctx;
  SSL *ssl; /* NULL: the context itself */
} dtls_target;

typedef dtls_target dtls_target_check(lua_State *L); /* of the object at index 1 */
extern const luaL_Reg dtls_context_settings[], dtls_association_settings[];
dtls_option_taker dtls_settings_take;
/* NULL, or a sentence, perhaps in buf. */
const char *dtls_settings_ciphers(dtls_target t, const char *list, char *buf, size_t size);
bool dtls_settings_restore(SSL *ssl); /* what was set for it alone holds, whatever identity its name has got */

/* ── name.c: what a peer may be called ───────────────────────────────────────────────────────────────────── */

enum { DTLS_NAME_MAX = 253 }; /* of a host name without its final dot, RFC 1035 §2.3.4 */

typedef struct {
  int family; /* of an IP address; AF_UNSPEC: a host name, or none when size is 0 */
  size_t size;
  char text[DTLS_NAME_MAX + 1]; /* without a final dot, without a zone */
} dtls_name;

/* NULL, or what is wrong with the text, which then is no name. A zone must be the name of an interface. */
const char *dtls_name_parse_untrusted(const char *text, size_t size, dtls_name *out);
/* The host that a server_name extension names, in lower case; none for an IP address, which RFC 6066 §3 does not allow.
   False: it is no name, and out has none. */
bool dtls_name_of_client_untrusted(const char *text, size_t size, dtls_name *out);
int dtls_name_lua(lua_State *L); /* core.name(text) */

/* ── verify.c: who the peer may be ───────────────────────────────────────────────────────────────────────── */

/* Beside OpenSSL's X509_V_ERR_…: the peer chose a key that is dear to use. */
enum { DTLS_VERIFY_KEY_TOO_LARGE = 10000 };

dtls_option_taker dtls_verify_take;
void dtls_verify_free(dtls_config *c);
/* What a client calls its server: SNI unless it is an IP address; with check, the name that its certificate must have.
   No name (size 0) is one that no certificate has. */
bool dtls_verify_name(SSL *ssl, const dtls_name *name, bool check);
typedef struct {
  STACK_OF(X509) *chain; /* as the peer sent it; NULL: none was refused */
  char *detail;          /* what was wanted and what came, as ASCII; NULL: there is nothing to say, or no memory */
} dtls_refusal;
void dtls_refusal_free(dtls_refusal *refusal);

/* ── system_store.c: the authorities that this machine trusts ────────────────────────────────────────────── */

enum { DTLS_SENTENCE_MAX = 1024 };
/* Adds their certificates. NULL, or a sentence, in buf: there are none, and where they were looked for. */
const char *dtls_system_store_fill(X509_STORE *store, char *buf, size_t size);

/* ── psk.c: pre-shared keys (RFC 4279, 5487, 5489, 8442) ─────────────────────────────────────────────────── */

enum { DTLS_OWN_IDENTITY_MAX = PSK_MAX_IDENTITY_LEN - 1 }; /* a client's, which libssl wants with its NUL */

dtls_option_taker dtls_psk_take;
void dtls_psk_free(dtls_config *c);
unsigned dtls_psk_for_server(SSL *ssl, const char *identity, unsigned char *key, unsigned max);
/* A ClientKeyExchange that libssl is about to look at: its identity may have a NUL, where libssl ends it. */
void dtls_psk_identify_untrusted(dtls_association *a, const uint8_t *message, size_t size);
int dtls_psk_push_identity(lua_State *L, const SSL *ssl); /* pushes all bytes of it, or nil */
bool dtls_psk_suite(const SSL *ssl); /* whether the suite in use, or about to be, has a pre-shared key */

/* ── extension.c: ALPN (RFC 7301) and SRTP (RFC 5764) ────────────────────────────────────────────────────── */

dtls_option_taker dtls_extension_take;
void dtls_extension_free(dtls_config *c);
int dtls_extension_alpn(lua_State *L, const SSL *ssl); /* pushes the protocol or nothing; returns how many */
int dtls_extension_srtp(lua_State *L, SSL *ssl);

/* ── session.c: resumption ───────────────────────────────────────────────────────────────────────────────── */

dtls_option_taker dtls_session_take;
const char *dtls_session_take_keys(lua_State *L, int index, dtls_config *c); /* ticket keys from the list there */
void dtls_session_free(dtls_config *c);
/* Ties what this handshake makes or resumes to the name and to the identity context. */
bool dtls_session_bind(SSL *ssl, const char *name, size_t size); /* ASCII letters in either case are the same */
/* A session from its bytes; NULL: it is none. */
SSL_SESSION *dtls_session_parse(const void *blob, size_t size);
bool dtls_session_in_time(const SSL_SESSION *session);
int dtls_session_is(lua_State *L); /* core.is_session(blob) */
/* Whether a client may offer it now, which then is done: in time, and made under the same name and context. */
bool dtls_session_offer(SSL *ssl, SSL_SESSION *session, const char *name);
void dtls_session_trim(SSL *ssl, size_t mtu); /* a client's hello is about to be made: it must fit a datagram */
int dtls_session_push(lua_State *L, SSL *ssl); /* pushes id, blob, or nothing when it cannot be resumed */

/* ── keylog.c ────────────────────────────────────────────────────────────────────────────────────────────── */

dtls_option_taker dtls_keylog_take;
void dtls_keylog_free(dtls_config *c);

/* ── certificate.c ───────────────────────────────────────────────────────────────────────────────────────── */

void dtls_certificate_init(lua_State *L);
/* A memory BIO that the collector frees, since Lua may raise at any push; NULL: none. One value is pushed in any case. */
BIO *dtls_certificate_push_scratch(lua_State *L);
/* Sets a field of the table on top to what has been written to a memory BIO, which is emptied. */
void dtls_certificate_set_written(lua_State *L, BIO *scratch, const char *field);
enum { DTLS_FINGERPRINT_SIZE = EVP_MAX_MD_SIZE * 3 + 1 };
bool dtls_certificate_fingerprint(const X509 *cert, const EVP_MD *digest, char out[DTLS_FINGERPRINT_SIZE]);
/* Writes "DNS:a.example, IP Address:192.0.2.1", ASCII whatever is in the names. False: there are none. */
bool dtls_certificate_write_alt_names(BIO *out, const X509 *cert);
/* Pushes a table with Node's fields, of the one that was refused if one was; whole: with issuerCertificate as far as the
   peer's chain goes. False: there is none, or no memory for all of it. */
bool dtls_certificate_push(lua_State *L, const SSL *ssl, bool whole);

/* ── cookie.c: stateless cookies (RFC 6347 §4.2.1) ───────────────────────────────────────────────────────── */

typedef struct dtls_cookies dtls_cookies;
typedef struct dtls_hello dtls_hello;

dtls_cookies *dtls_cookies_new(void); /* random secret, rotated by itself until one is set; NULL: failure */
void dtls_cookies_free(dtls_cookies *cookies);
bool dtls_cookies_set(dtls_cookies *cookies, const void *current, size_t size, const void *previous, size_t previous_size);
/* generation: cookies of another one are others, see dtls_association. */
bool dtls_cookies_make(dtls_cookies *cookies, const dtls_address *peer, const dtls_hello *hello, uint16_t generation,
                       uint8_t out[DTLS_COOKIE_SIZE]);
bool dtls_cookies_verify(dtls_cookies *cookies, const dtls_address *peer, const dtls_hello *hello, uint16_t generation);

/* ── hello.c: what a ClientHello is, and what it gets ────────────────────────────────────────────────────── */

struct dtls_hello {
  uint16_t message_seq;
  const uint8_t *version; /* 2 bytes */
  const uint8_t *random;  /* DTLS_RANDOM_SIZE bytes */
  const uint8_t *session, *cookie, *suites;
  size_t session_size, cookie_size, suites_size;
};

/* True for the first fragment of a ClientHello, complete up to its cipher suites. */
bool dtls_hello_parse_untrusted(const uint8_t *data, size_t size, dtls_hello *out);

void dtls_hello_callbacks(SSL_CTX *ctx);
/* Looks at the datagram in hand, of the peer of that path (NULL: of a new one): dropped, answered, or (true) verified.
   Nothing is kept of it. */
bool dtls_hello_untrusted(dtls_endpoint *ep, const dtls_path *path);
/* Brings a new association to where it reads a verified hello, the datagram there. False: libssl failed. */
bool dtls_hello_begin_untrusted(dtls_association *a, const dtls_path *path, const uint8_t *data, size_t size);

/* ── pace.c: when a peer that has gone may begin a handshake ─────────────────────────────────────────────────── */

typedef struct dtls_pace dtls_pace;

dtls_pace *dtls_pace_new(void); /* NULL: no memory */
void dtls_pace_free(dtls_pace *pace);
/* until: when a peer may begin a handshake again, in ms of dtls_now(); it is asked for when the peer has no path. */
void dtls_pace_remember(dtls_pace *pace, const dtls_address *local, const dtls_address *peer, uint64_t until);
uint64_t dtls_pace_recall(const dtls_pace *pace, const dtls_address *local, const dtls_address *peer); /* 0: at once */

/* ── path.c: the quartet (local, peer) and the associations on it ────────────────────────────────────────── */

struct dtls_path {
  dtls_endpoint *endpoint; /* NULL for a client */
  dtls_address local, peer;
  int fd;                      /* the peer socket, or the client's; -1 when the endpoint's socket is shared */
  bool owns_fd;                /* and closes it */
  unsigned fork_generation;    /* of the process that opened it, fork.c */
  uint64_t seed;               /* of the table that it is in */
  dtls_path *before, *after;   /* in the list of that table's */
  dtls_association *current;   /* reads the socket, if there is one of its own */
  dtls_association *successor; /* a parallel handshake (RFC 6347 §4.2.8) */
  uint32_t overflow_seen;      /* drops at the socket that have been counted */
  uint64_t paced_until;        /* ms, when the peer may begin another handshake; it may at once when it has completed one */
};

/* Where a datagram on a path belongs. BOTH: only the keys can tell. */
typedef enum { DTLS_TO_CURRENT, DTLS_TO_SUCCESSOR, DTLS_TO_BOTH, DTLS_TO_HELLO } dtls_destination;

dtls_path *dtls_path_new(dtls_endpoint *ep, const dtls_address *local, const dtls_address *peer, int fd, bool owns_fd);
void dtls_path_free(dtls_path *path); /* for a path that no association is on; others go with their last one */
const dtls_association *dtls_path_of_random(const dtls_path *path, const uint8_t *random); /* NULL: none has it */
dtls_destination dtls_path_classify_untrusted(const dtls_path *path, const uint8_t *data, size_t size);
/* Counts what the kernel has dropped at the path's own socket since the last time. */
void dtls_path_count_overflow(dtls_path *path);
void dtls_path_attach(dtls_path *path, dtls_association *a);
/* Takes an association off its path. Returns the one that now is the current one because of it, or NULL. */
dtls_association *dtls_path_detach(dtls_association *a);
/* The parallel handshake if there is one, else the current association. */
static inline dtls_association *dtls_path_newest(const dtls_path *path) { return path->successor ? path->successor : path->current; }
/* A flight leaves: the peer may begin no handshake for so many ms. */
void dtls_path_pace(dtls_path *path, unsigned interval);
/* The peer has begun another handshake before it may: what the unfinished one would repeat could only disturb that one. */
void dtls_path_silence(dtls_path *path);

typedef struct dtls_paths dtls_paths; /* the table: (local, peer) → path */
dtls_paths *dtls_paths_new(void);
void dtls_paths_free(dtls_paths *paths);
bool dtls_paths_add(dtls_paths *paths, dtls_path *path);
void dtls_paths_remove(dtls_paths *paths, dtls_path *path);
void dtls_paths_count_overflow(const dtls_paths *paths); /* of each */
dtls_path *dtls_paths_find(const dtls_paths *paths, const dtls_address *local, const dtls_address *peer);

/* ── hold.c: what only the application can answer; the handshake is held meanwhile ───────────────────────── */

typedef struct dtls_hold dtls_hold;

void dtls_hold_callbacks(SSL_CTX *ctx); /* the one that asks about a hello */
void dtls_hold_free(dtls_association *a);
bool dtls_hold_asks(const dtls_association *a); /* a question waits for its answer */
/* Whether the plaintext handshake record there asks for what only the application knows. It and what is behind it in its
   datagram, size bytes in all, then are kept and come back through dtls_hold_next(). */
bool dtls_hold_untrusted(dtls_association *a, const uint8_t *record, size_t size);
void dtls_hold_keep(dtls_association *a, const uint8_t *data, size_t size); /* behind what is kept already */
bool dtls_hold_pending(const dtls_association *a);                          /* something is kept, and nothing asked */
size_t dtls_hold_next(dtls_association *a, uint8_t *out, size_t capacity);
/* For verify.c and psk.c. UNANSWERED: the question has been put, come back. */
typedef enum { DTLS_UNANSWERED, DTLS_YES, DTLS_NO } dtls_answer;
dtls_answer dtls_hold_ask_verify(dtls_association *a);
/* What psk was answered with. NULL: no key; failed: there was no answer, because the application's function failed. */
const dtls_psk *dtls_hold_psk(const dtls_association *a, bool *failed);
const char *dtls_hold_unanswered(const dtls_association *a); /* names what has not answered yet; NULL: nothing was asked */
/* What a server's client said of itself before libssl took it in, or would not take it in. NULL: nothing, or nothing was asked. */
const dtls_name *dtls_hold_name(const dtls_association *a);
const char *dtls_hold_identity(const dtls_association *a, size_t *size);
SSL_SESSION *dtls_hold_take_session(dtls_association *a, const uint8_t *id, size_t size); /* what the store answered, or NULL */
int dtls_hold_push(lua_State *L, dtls_association *a); /* nil, kind, subject… of the question */
extern const luaL_Reg dtls_hold_methods[];

/* ── flight.c: records of a handshake wait for their turn ────────────────────────────────────────────────── */

typedef struct dtls_flight dtls_flight;

/* Type and length of a handshake message: its first four bytes. */
static inline uint32_t dtls_message_shape(const uint8_t *message) { return (uint32_t)message[0] << 24 | dtls_u24(message + 1); }

void dtls_flight_watch(dtls_association *a); /* knows from then on which message libssl reads next */
void dtls_flight_completed(dtls_association *a);
void dtls_flight_free(dtls_association *a);
bool dtls_flight_take(dtls_association *a, const uint8_t *data, size_t size); /* a datagram; false: out of memory */
bool dtls_flight_pending(const dtls_association *a); /* there is more that libssl can read now */
/* For an open association, one after the other: what came before Finished, and what is left of the datagram with Finished. */
size_t dtls_flight_rest(dtls_association *a, uint8_t *out, size_t capacity);
/* The next record of it that libssl may read now; 0: there is none. */
size_t dtls_flight_next_untrusted(dtls_association *a, uint8_t *out, size_t capacity);
/* The same of what came before its turn. */
size_t dtls_flight_waiting_untrusted(dtls_association *a, uint8_t *out, size_t capacity);

/* ── screen.c: the filter BIO between libssl and the dgram BIO ───────────────────────────────────────────── */

BIO *dtls_screen_new(dtls_association *a);
ssize_t dtls_screen_put(dtls_association *a, const char *data, size_t size); /* a datagram to its peer, like send(2) */
dtls_drop dtls_screen_reason(int number); /* what a failed system call on a socket counts as */
bool dtls_screen_is_final(int number);    /* the socket is beyond use */
/* The size of the first record of a datagram, or of all of it when it is none. good: libssl may see it. */
size_t dtls_screen_record_untrusted(dtls_association *a, const uint8_t *data, size_t size, bool *good);
/* Removes from a datagram, in place, every record that can only do harm; returns what is left. */
size_t dtls_screen_filter_untrusted(dtls_association *a, uint8_t *data, size_t size);

void dtls_screen_collect(dtls_association *a); /* keeps what has arrived until the question is answered */

/* The shortest protected record of the suite in use or about to be: nonce and tag. 0: no suite yet. */
size_t dtls_screen_protected_min(const SSL *ssl);
enum { DTLS_FINISHED_SIZE = DTLS_HANDSHAKE_HEADER + 12 }; /* of every suite of TLS 1.2 (RFC 5246 §7.4.9) */

/* ── timer.c: when a flight is repeated ──────────────────────────────────────────────────────────────────── */

enum { DTLS_FIRST_TIMEOUT = 1000, DTLS_TIMEOUT_MAX = 60000 }; /* ms, of a wait for an answer (RFC 6347 §4.2.4.1) */

void dtls_timer_watch(dtls_association *a);
void dtls_timer_set(dtls_association *a, const void *until); /* libssl has set its own, a timeval; zero: no longer */
void dtls_timer_postpone(dtls_association *a); /* the timer has run out, and libssl did not repeat the flight */

/* ── multiplex.c: datagrams of other protocols on the port of an association (RFC 7983) ──────────────────── */

bool dtls_multiplex_is_other(const uint8_t *data, size_t size);
dtls_association *dtls_multiplex_taker(const dtls_path *path); /* the one whose application asks for them; NULL: none */
void dtls_multiplex_keep(dtls_association *a, const uint8_t *data, size_t size); /* a client's, until Lua takes it */
void dtls_multiplex_free(dtls_association *a);
const char *dtls_multiplex_check(lua_State *L, int index, size_t *size); /* what may be sent; else pushes nil, err and returns NULL */
extern const luaL_Reg dtls_multiplex_methods[];

/* ── fork.c ── */

bool dtls_fork_watch(void);          /* when the module is loaded; false: no memory, and it must not be used */
unsigned dtls_fork_generation(void); /* another one in a child process than in its parent */
int dtls_fork_error(lua_State *L);   /* pushes nil and the error of an association of the parent */

/* ── association.c: one SSL ──────────────────────────────────────────────────────────────────────────────── */

struct dtls_association {
  SSL *ssl;
  BIO *dgram; /* owned by ssl */
  dtls_endpoint *endpoint; /* NULL for a client */
  dtls_path *path;         /* NULL until it has a peer, and once closed */
  uint64_t number;         /* of its endpoint's, from 1 on */
  int owner;               /* reference of its Lua owner in the endpoint's table, or LUA_NOREF */
  unsigned fork_generation; /* of the process that made it, fork.c */
  bool server, open;
  bool buffered;           /* libssl holds record buffers for it (open ones only) */
  bool reads_socket;       /* false: only datagrams handed in are read */
  bool reject;             /* as its context says, unless set for itself */
  struct {
    bool verify, depth, ciphers, ccm8;
    int level;     /* of security, that the list of suites asks for */
    char *groups, *sigalgs; /* OpenSSL's lists */
    uint64_t options;
    long modes; /* bits that were set or cleared */
  } own;           /* what was set for itself, settings.c */
  bool takes_others;       /* the application asks for datagrams of other protocols (multiplex.c) */
  bool asks_hello;         /* the application looks at the hello: names, stored sessions */
  bool stores_sessions;    /* the application keeps sessions, which then have no tickets */
  SSL_SESSION *offered;    /* by a client. libssl, repeating the hello, reads it after it has let go of it */
  dtls_config *base;       /* of the context that it was made with: its ticket keys hold for every name */
  const uint8_t *datagram; /* handed in; valid until the endpoint takes its next one */
  size_t datagram_size;
  unsigned reads_left;     /* of its socket, until it wants to read again; libssl itself goes on after a forged record */
  dtls_other *others;      /* datagrams of other protocols, a client's (multiplex.c) */
  dtls_hold *hold;         /* while something is asked, or waits behind a question */
  dtls_flight *flight;     /* of a handshake: the datagram that is being read, and what came before its turn */
  bool identity_lost;      /* no memory for the PSK identity of its ClientKeyExchange, psk.c */
  dtls_refusal refusal;    /* of the peer's certificate, verify.c */
  bool wants_certificate;  /* its CertificateRequest has been sent */
  struct {
    uint8_t type; /* SSL3_MT_… */
    bool written; /* by us, else read */
  } last;         /* the handshake message that libssl has read or written last; libssl's own states are renumbered at times */
  bool peer_changed_cipher; /* libssl has read the peer's ChangeCipherSpec: from then on it can read protected records */
  bool was_shown_cipher;    /* it has read one, and its state before was state_before_cipher */
  OSSL_HANDSHAKE_STATE state_before_cipher;
  unsigned repeated_finished; /* how often an open association has repeated its last flight because the peer repeated its Finished */
  uint16_t next_seq;       /* of the handshake message that libssl reads next */
  bool repeating;          /* libssl repeats a flight, until it reads again */
  uint16_t shape_seq;      /* of the one that shape is of */
  uint32_t shape;          /* what the first fragment of that message gave it; 0: none */
  char *keylog;            /* lines that the application has not taken yet */
  uint8_t random[DTLS_RANDOM_SIZE]; /* of the hello that made it (server) */
  uint16_t cookie_generation; /* one more than that of the association before it on its path whose hello had the same random, or 0 */
  size_t mtu;                       /* UDP payload; caps every datagram */
  size_t data_mtu, protected_min;   /* once open */
  uint64_t plain_number;            /* of the last record of epoch 0 that libssl has got */
  uint64_t plain_shift;             /* what is added to the numbers of the records of epoch 0 that it writes */
  bool rehearses;                   /* the cookie exchange: what libssl writes is not sent (hello.c) */
  bool silent;                      /* nothing is sent until the peer goes on with this handshake (dtls_path_silence) */
  unsigned unread;                  /* protected records with data that libssl got since it last had nothing more to say */
  unsigned timeouts;                /* of the flight that waits for an answer */
  size_t longest;                   /* datagram of that flight that was sent */
  bool answered;                    /* a part of the answer has come, so all of that flight has arrived */
  unsigned first_timeout, next_timeout; /* ms; next 0: double the last */
  unsigned interval;                    /* ms, the one that runs */
  uint64_t repeat_at;                   /* ms, when it ends; 0: no flight waits for an answer */
  int write_error;                  /* errno of the last datagram that did not leave */
  int alert_read;                   /* level << 8 | description of the last alert that libssl has read */
  /* An unauthenticated sign that the handshake is futile: an alert (≥ 0) or an errno. It counts when nothing
     valid follows, since anybody can forge it: an alert within one retransmission interval, an errno until the flight
     has been repeated and that has had no answer either. */
  int suspect_alert, suspect_errno;
  OSSL_HANDSHAKE_STATE suspect_state; /* of the handshake when it was seen */
  bool suspect_repeated;     /* an errno, and the flight has been repeated since */
  uint64_t suspect_deadline; /* ms, 0: none */
  dtls_counters counters;
};

void dtls_association_init(lua_State *L);
int dtls_association_client(lua_State *L); /* core.client(context, fd[, options]) */
int dtls_association_draft(lua_State *L);  /* core.draft(context) */
dtls_association *dtls_association_check(lua_State *L); /* the one at index 1 */
dtls_association *dtls_association_new(SSL_CTX *ctx, dtls_endpoint *ep, int fd);
void dtls_association_free(dtls_association *a);
dtls_box *dtls_association_push(lua_State *L); /* an empty box, which owns what is put into it */
bool dtls_association_set_peer(dtls_association *a, const dtls_path *path); /* attaching it is the caller's */
void dtls_association_release(dtls_association *a); /* its record buffers, until they are needed again */
void dtls_association_use_mtu(dtls_association *a, size_t mtu); /* bytes of UDP payload */
void dtls_association_learn_mtu(dtls_association *a); /* a datagram was too large for the path */
void dtls_association_suspect(dtls_association *a, int alert, int number);
void dtls_association_clear_suspicion(dtls_association *a);
/* The suite about to be used, else the one in use; NULL: none yet. */
static inline const SSL_CIPHER *dtls_suite(const SSL *ssl) {
  const SSL_CIPHER *pending = SSL_get_pending_cipher(ssl);
  return pending ? pending : SSL_get_current_cipher(ssl);
}
static inline dtls_association *dtls_association_of(const SSL *ssl) { return SSL_get_app_data(ssl); }

/* ── endpoint.c: the listening socket; every datagram of a server that no peer socket took ───────────────── */

struct dtls_endpoint {
  unsigned refs; /* the userdata and one per association */
  int fd;        /* -1 once closed */
  bool owns_fd;  /* a duplicate, else borrowed */
  bool shared;   /* the shared demux strategy */
  bool asks_hello, stores_sessions; /* what its associations do */
  bool takes_others; /* the application asks for datagrams of other protocols, of peers without an association */
  dtls_address bound;
  dtls_buffers peer_buffers; /* of the peers' sockets */
  uint32_t overflow_seen;    /* drops at its own socket that have been counted */
  SSL_CTX *ctx;
  dtls_cookies *cookies;
  dtls_paths *paths;
  dtls_pace *pace;
  dtls_batch *batch;
  struct dtls_stashed *stash, **stash_end; /* copies that wait to be dispatched again, a FIFO */
  size_t stash_count;
  unsigned left; /* datagrams that may still be taken in this turn of the event loop */
  struct dtls_stashed *held; /* the stash entry that `hand` points into */
  dtls_datagram hand;        /* the datagram in hand */
  uint64_t hand_seen_by;     /* the number of the association that has had it, when it is for another one, too; or 0 */
  dtls_association *reader;  /* the association it was handed to */
  bool verified;             /* the datagram in hand is a verified hello, which accept() may take */
  struct {
    uint64_t hellos, cookies_sent, cookies_accepted, cookies_refused;
  } stats;
  uint64_t associations; /* that it has made */
  dtls_counters counters;
};

void dtls_endpoint_init(lua_State *L);
int dtls_endpoint_new(lua_State *L); /* core.endpoint(context, fd, demux[, options]) */
void dtls_endpoint_unref(dtls_endpoint *ep);
/* Copies a datagram for later dispatch. seen_by: the number of the association that has had it, or 0. */
void dtls_endpoint_stash(dtls_endpoint *ep, const dtls_path *path, const dtls_address *peer, const uint8_t *data, size_t size, uint64_t seen_by);
/* Copies all that a peer socket holds for later dispatch, each datagram with its own sender. */
void dtls_endpoint_drain(dtls_endpoint *ep, const dtls_path *path);

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
void dtls_register(lua_State *L, const char *type, const luaL_Reg *methods); /* makes or extends the metatable of a type */
void dtls_push_metatable(lua_State *L, const char *type);
/* A userdata of a type, and in it the object, NULL once closed. The type is the address of its name, not the text. */
struct dtls_box {
  void *object;
  const char *type;
};
dtls_box *dtls_box_push(lua_State *L, const char *type);             /* empty */
dtls_box *dtls_box_test(lua_State *L, int index, const char *type);  /* NULL for anything else, whatever its metatable */
dtls_box *dtls_box_check(lua_State *L, int index, const char *type); /* raises for that */
void *dtls_check(lua_State *L, int index, const char *type);         /* the object in a box; raises also when it is closed */
/* An integer option of the table at index: its value, or fallback when absent; raises outside [min, max]. */
long dtls_option_integer(lua_State *L, int index, const char *name, long fallback, long min, long max);

#endif
