/* One association: one SSL. */
#ifndef DTLS_ASSOCIATION_ASSOCIATION_H
#define DTLS_ASSOCIATION_ASSOCIATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/counters.h"
#include "base/fork.h"
#include "base/openssl.h"
#include "association/callbacks.h"
#include "association/multiplex.h"
#include "association/path.h"
#include "association/reassembly.h"
#include "association/types.h"
#include "identity/context.h"
#include "identity/peer.h"
#include "binding/lua.h"
#include "wire/record.h"

struct dtls_association {
  dtls_peer peer;
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
  bool takes_others;       /* the application asks for datagrams of other protocols (multiplex.c) */
  bool asks_hello;         /* the application looks at the hello: names, stored sessions */
  SSL_SESSION *offered;    /* by a client. libssl, repeating the hello, reads it after it has let go of it */
  const uint8_t *datagram; /* handed in; valid until the endpoint takes its next one */
  size_t datagram_size;
  unsigned reads_left;     /* of its socket, until it wants to read again; libssl itself goes on after a forged record */
  dtls_other *others;      /* datagrams of other protocols, of its own socket (multiplex.c) */
  dtls_callback *callback;         /* while something is asked, or waits behind a question */
  dtls_reassembly *reassembly;     /* of a handshake: the datagram that is being read, and what came before its turn */
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
  uint8_t random[DTLS_RANDOM_SIZE]; /* of the hello that made it (server) */
  uint16_t cookie_generation; /* one more than that of the association before it on its path whose hello had the same random, or 0 */
  size_t mtu;                       /* UDP payload; caps every datagram */
  size_t data_mtu, protected_min;   /* once open */
  uint64_t plain_number;            /* of the last record of epoch 0 that libssl has got */
  uint64_t plain_shift;             /* what is added to the numbers of the records of epoch 0 that it writes */
  bool rehearses;                   /* the cookie exchange: what libssl writes is not sent (listener.c) */
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
void dtls_association_prepare(SSL_CTX *ctx); /* a server's, before its first association */
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
/* The association that a peer is of: its first member. */
static inline dtls_association *dtls_association_of(const SSL *ssl) { return (dtls_association *)dtls_peer_of(ssl); }

#endif
