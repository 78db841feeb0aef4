/*
 * One association: one SSL and what belongs to it. Each member that is a struct is changed by the file that declares it.
 */
#ifndef DTLS_ASSOCIATION_ASSOCIATION_H
#define DTLS_ASSOCIATION_ASSOCIATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/bio.h"
#include "association/callbacks.h"
#include "association/footprint.h"
#include "association/listener.h"
#include "association/mtu.h"
#include "association/multiplex.h"
#include "association/path.h"
#include "association/reassembly.h"
#include "association/retransmit.h"
#include "association/soft_error.h"
#include "association/types.h"
#include "base/counters.h"
#include "base/failure.h"
#include "base/openssl.h"
#include "identity/peer.h"
#include "wire/record.h"

struct dtls_association {
  dtls_peer peer; /* first, so that a peer is its association, too (dtls_association_of) */
  SSL *ssl;
  BIO *dgram;               /* owned by ssl */
  dtls_endpoint *endpoint;  /* NULL for a client */
  dtls_path *path;          /* NULL until it has a peer, and once closed */
  uint64_t number;          /* of its endpoint's, from 1 on */
  int owner;                /* the binding's reference to the Lua object that it belongs to */
  unsigned fork_generation; /* of the process that made it, base/fork.h */
  bool server, open;
  bool asks_hello;      /* the application looks at the hello: names, stored sessions */
  int alert_read;       /* level << 8 | description of the last alert that libssl has read */
  SSL_SESSION *offered; /* by a client; kept, as libssl reads it for a repeated hello after its own reference is gone */
  dtls_origin origin;
  dtls_input input;
  dtls_output output;
  dtls_handshake handshake;
  dtls_footprint footprint;
  dtls_reassembly *reassembly; /* of a handshake: the datagram that is being read, and what came before its turn */
  dtls_callback *callback;     /* while something is asked, or waits behind a question */
  dtls_retransmit retransmit;
  dtls_soft_error soft_error;
  dtls_mtu mtu;
  dtls_others others;
  dtls_counters counters;
};

/* What a call that may have to wait comes to. FAILED fills in a failure, the others do not. */
typedef enum {
  DTLS_DONE,
  DTLS_WANT_READ,
  DTLS_CLOSED,      /* the peer has sent close_notify */
  DTLS_ASKED,       /* the application must answer a question first (callbacks.h) */
  DTLS_WANT_ANSWER, /* the question is still open */
  DTLS_FAILED
} dtls_result;

enum { DTLS_NO_OWNER = -2 }; /* LUA_NOREF */

void dtls_association_prepare(SSL_CTX *ctx); /* a server's, before its first association */
dtls_association *dtls_association_new(SSL_CTX *ctx, dtls_endpoint *ep, int fd); /* NULL: OpenSSL's queue says why */
void dtls_association_free(dtls_association *a);
bool dtls_association_set_peer(dtls_association *a, const dtls_path *path); /* attaching it is the caller's */
bool dtls_association_is_foreign(const dtls_association *a);                /* it belongs to the parent process */

dtls_result dtls_association_handshake(dtls_association *a, dtls_failure *f); /* SSL_do_handshake */
/* One message (SSL_read_ex). more: the datagram held more than this message, which no readable socket will announce. From
   a socket of its own it reads at most DTLS_READS_MAX datagrams and then says WANT_READ, whether or not there are more. */
dtls_result dtls_association_read(dtls_association *a, char message[DTLS_MESSAGE_MAX], size_t *size, bool *more,
                                  dtls_failure *f);
/* One message in one datagram (SSL_write); fragments: also one that IP must cut. EMSGSIZE: longer than that. EAGAIN, ENOBUFS: the
   system dropped it; nothing else is wrong. fatal: the association is beyond use. */
bool dtls_association_write(dtls_association *a, const char *message, size_t size, bool fragments, bool *fatal,
                            dtls_failure *f);
void dtls_association_shutdown(dtls_association *a); /* close_notify, if there is anybody to tell (SSL_shutdown) */
/* a datagram of another protocol */
bool dtls_association_send_other(dtls_association *a, const char *data, size_t size, dtls_failure *f);
/* A parallel handshake has completed: it takes its path over. Returns the association that had it; NULL: none. */
dtls_association *dtls_association_promote(dtls_association *a);

/* ms, when handle_timeout wants to be called; UINT64_MAX: never, or not before an answer */
uint64_t dtls_association_deadline(const dtls_association *a);
bool dtls_association_handle_timeout(dtls_association *a, dtls_failure *f); /* repeats the last flight when it is due */
/* ms; next 0: double the wait */
void dtls_association_set_retransmit(dtls_association *a, unsigned first, unsigned next);
void dtls_association_release(dtls_association *a); /* what it does not need while it has nothing to do */
/* Keeps what several writes need, until release. False: it has that anyway. */
bool dtls_association_reserve(dtls_association *a);

/* the PSK identity that its peer has, or says that it has; or NULL */
const char *dtls_association_identity(const dtls_association *a, size_t *size);
/* The association that a peer is of: its first member. */
static inline dtls_association *dtls_association_of(const SSL *ssl) { return (dtls_association *)dtls_peer_of(ssl); }

#endif
