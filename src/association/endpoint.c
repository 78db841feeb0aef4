/*
 * The sockets of a server: takes datagrams in, finds out whose they are, and makes associations of verified hellos. In both
 * strategies all datagrams come here.
 */
#include "association/endpoint.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "association/deferral.h"
#include "association/listener.h"
#include "base/clock.h"
#include "base/descriptor.h"
#include "base/platform.h"

/* ── life ── */

void dtls_endpoint_unref(dtls_endpoint *ep) {
  if (--ep->refs > 0) return;
  dtls_deferral_unref(ep->deferral);
  OPENSSL_free(ep);
}

static void release_reader(dtls_endpoint *ep) {
  dtls_association *reader = ep->current.reader;
  if (!reader) return;
  reader->input.data = NULL;
  dtls_association_release(reader);
  ep->current.reader = NULL;
}

static void release_current(dtls_endpoint *ep) {
  release_reader(ep);
  dtls_intake_release(ep);
  ep->current.datagram.data = NULL;
  ep->current.verified = false;
}

/* Lets go of everything but the memory that associations still point to. */
static void shut(dtls_endpoint *ep) {
  release_current(ep);
  dtls_deferral_close(ep->deferral, ep->fd);
  if (ep->owns_fd && ep->fd >= 0) close(ep->fd);
  ep->fd = -1;
  ep->current.seen_by = 0;
  dtls_intake_close(ep);
  dtls_paths_free(ep->paths);
  ep->paths = NULL;
  dtls_pace_free(ep->pace);
  ep->pace = NULL;
  dtls_cookies_free(ep->cookies);
  ep->cookies = NULL;
  SSL_CTX_free(ep->ctx);
  ep->ctx = NULL;
}

void dtls_endpoint_close(dtls_endpoint *ep) {
  shut(ep);
  dtls_endpoint_unref(ep);
}

/* Whether the socket can be listened on. */
static bool prepare_socket(int fd, bool shared, bool duplicate, dtls_address *bound, dtls_failure *f) {
  dtls_address peer;
  /* peer sockets share the port; allowed after bind, so that a port in use is still an error there */
  if (!dtls_udp_local(fd, bound) || !dtls_control_ask(fd, bound->sa.sa_family) || (!shared && !dtls_udp_share_port(fd)))
    return dtls_fail_system(f, errno, "cannot listen on this socket");
  /* sin6_port is in the same place */
  if (bound->v4.sin_port == 0) return dtls_fail(f, "EINVAL", "cannot listen on a socket that is not bound");
  if (dtls_udp_peer(fd, &peer))
    return dtls_fail(f, "EISCONN", "cannot listen on a socket that is connected to one peer");
  dtls_udp_announce_errors(fd);
  if (!duplicate) dtls_udp_coalesce(fd); /* what the caller keeps for himself he may read one day */
  return true;
}

static bool fill(dtls_endpoint *ep, SSL_CTX *ctx) {
  ep->cookies = dtls_cookies_new();
  ep->paths = dtls_paths_new();
  ep->pace = dtls_pace_new();
  if (SSL_CTX_up_ref(ctx)) ep->ctx = ctx;
  return ep->cookies && ep->paths && ep->pace && ep->ctx && dtls_intake_open(ep);
}

dtls_endpoint *dtls_endpoint_new(SSL_CTX *ctx, int fd, dtls_endpoint_options options, dtls_deferral *deferral,
                                 dtls_failure *f) {
  dtls_address bound;
  if (!DTLS_HAS_EPOLL) options.shared = true; /* there can be no peer sockets */
  if (!prepare_socket(fd, options.shared, options.duplicate, &bound, f)) return NULL;
  dtls_endpoint *ep = OPENSSL_zalloc(sizeof *ep);
  int own = options.duplicate ? dtls_descriptor_duplicate(fd) : fd;
  if (!ep || own < 0) {
    dtls_fail_system(f, own < 0 ? errno : ENOMEM, "cannot listen");
    if (options.duplicate && own >= 0) close(own);
    OPENSSL_free(ep);
    return NULL;
  }
  ep->refs = 1;
  ep->deferral = deferral;
  dtls_deferral_ref(deferral);
  ep->fd = own;
  ep->owns_fd = options.duplicate;
  ep->options = options;
  ep->bound = bound;
  (void)dtls_udp_overflow(own, &ep->overflow_seen); /* drops from before the endpoint had the socket are not counted */
  if (fill(ep, ctx)) return ep;
  dtls_endpoint_close(ep);
  dtls_fail_openssl(f, "ERR_DTLS_CONFIG", "cannot listen");
  return NULL;
}

bool dtls_endpoint_set_context(dtls_endpoint *ep, SSL_CTX *ctx, dtls_failure *f) {
  if (!SSL_CTX_up_ref(ctx)) return dtls_fail_openssl(f, "ERR_DTLS_CONFIG", "cannot use the context");
  SSL_CTX_free(ep->ctx);
  ep->ctx = ctx;
  ep->current.verified = false;
  return true;
}

void dtls_endpoint_count_overflow(dtls_endpoint *ep) {
  ep->counters.drops[DTLS_DROP_OVERFLOWED] += dtls_udp_overflow(ep->fd, &ep->overflow_seen);
  dtls_paths_count_overflow(ep->paths);
}

/* ── datagrams ── */

/* The association gets the current datagram. */
static void deliver(dtls_endpoint *ep, dtls_association *a) {
  a->input.data = ep->current.datagram.data;
  a->input.size = ep->current.datagram.size;
  dtls_count_in(&a->counters, ep->current.datagram.size);
  ep->current.reader = a;
  dtls_footprint_use(a);
}

static dtls_found found_data(dtls_endpoint *ep, dtls_association *a, dtls_association **out) {
  deliver(ep, a);
  *out = a;
  return DTLS_FOUND_DATA;
}

/* Whether the sender of the current datagram must wait before it begins another handshake. */
static bool is_paced(const dtls_endpoint *ep, const dtls_path *path) {
  const dtls_datagram *d = &ep->current.datagram;
  return dtls_now() < (path ? path->paced_until : dtls_pace_recall(ep->pace, &d->local, &d->peer));
}

/* The current datagram may be a hello: the listener looks. */
static dtls_found handle_client_hello_untrusted(dtls_endpoint *ep, dtls_path *path, bool *known) {
  if (!dtls_listener_hear_untrusted(ep, path)) return DTLS_FOUND_NOTHING;
  if (is_paced(ep, path)) {
    ep->counters.drops[DTLS_DROP_PACE]++;
    if (path) dtls_path_silence(path);
    return DTLS_FOUND_NOTHING;
  }
  ep->current.verified = true;
  *known = path != NULL;
  return DTLS_FOUND_HELLO;
}

/* The current datagram was for both associations of its path, and one has had it. The other one may have taken its place. */
static dtls_found deliver_to_other(dtls_endpoint *ep, const dtls_path *path, uint64_t seen_by, dtls_association **out) {
  dtls_association *other = path ? dtls_path_newest(path) : NULL;
  return other && other->number != seen_by ? found_data(ep, other, out) : DTLS_FOUND_NOTHING;
}

/* The current datagram has no path. */
static dtls_found meet_untrusted(dtls_endpoint *ep, bool *known) {
  const dtls_datagram *d = &ep->current.datagram;
  if (d->size >= DTLS_RECORD_HEADER && d->data[0] == SSL3_RT_HANDSHAKE && dtls_record_epoch(d->data) == 0)
    return handle_client_hello_untrusted(ep, NULL, known);
  ep->counters.drops[d->size == 0 ? DTLS_DROP_EMPTY : DTLS_DROP_STRANGER]++;
  return DTLS_FOUND_NOTHING;
}

/* The current datagram is longer than any record, and has been cut. */
static dtls_found drop_cut(dtls_endpoint *ep, const dtls_path *path) {
  if (path)
    DTLS_DROP(path->current, LENGTH);
  else
    ep->counters.drops[DTLS_DROP_LENGTH]++;
  return DTLS_FOUND_NOTHING;
}

/* The current datagram goes where it belongs. NOTHING: nobody needs to know. */
static dtls_found dispatch_untrusted(dtls_endpoint *ep, uint64_t seen_by, dtls_association **out, bool *known) {
  const dtls_datagram *d = &ep->current.datagram;
  dtls_path *path = dtls_paths_find(ep->paths, &d->local, &d->peer);
  if (d->size > DTLS_DATAGRAM_MAX) return drop_cut(ep, path);
  if (seen_by != 0) return deliver_to_other(ep, path, seen_by, out);
  if (dtls_multiplex_is_other_untrusted(d->data, d->size)) {
    *out = path ? dtls_multiplex_taker(path) : NULL;
    if (*out || (!path && ep->takes_others)) return DTLS_FOUND_OTHER;
  }
  if (!path) return meet_untrusted(ep, known);
  switch (dtls_path_classify_untrusted(path, d->data, d->size)) {
    case DTLS_TO_CURRENT: return found_data(ep, path->current, out);
    case DTLS_TO_SUCCESSOR: return found_data(ep, path->successor, out);
    case DTLS_TO_BOTH: ep->current.seen_by = path->current->number; return found_data(ep, path->current, out);
    default: return handle_client_hello_untrusted(ep, path, known);
  }
}

/* What the socket of a peer has besides datagrams. */
static dtls_found hear_news(dtls_endpoint *ep, dtls_association **out) {
  switch (dtls_intake_news(ep, out)) {
    case DTLS_SOCKET_FAILED: return DTLS_FOUND_DATA;
    case DTLS_SOCKET_HAS_ROOM: return DTLS_FOUND_ROOM;
    default: return DTLS_FOUND_NOTHING;
  }
}

unsigned dtls_endpoint_turn(dtls_endpoint *ep, unsigned datagrams, bool of_peers) {
  dtls_footprint_look(ep);
  return dtls_intake_turn(ep, datagrams, of_peers);
}

dtls_found dtls_endpoint_next(dtls_endpoint *ep, dtls_association **association, bool *known) {
  dtls_found found = DTLS_FOUND_NOTHING;
  uint64_t seen_by = ep->current.seen_by;
  if (seen_by != 0) {
    ep->current.seen_by = 0;
    release_reader(ep);
    found = dispatch_untrusted(ep, seen_by, association, known);
  }
  while (found == DTLS_FOUND_NOTHING) {
    release_current(ep);
    if (!dtls_intake_take(ep, &ep->current.datagram)) {
      found = hear_news(ep, association);
      break;
    }
    found = dispatch_untrusted(ep, 0, association, known);
  }
  return found;
}

bool dtls_endpoint_send_other(dtls_endpoint *ep, const dtls_address *local, const dtls_address *peer, const char *data,
                              size_t size, dtls_failure *f) {
  if (dtls_udp_send(ep->fd, local, peer, data, size) < 0)
    return dtls_fail_system(f, errno, "the datagram was not sent");
  dtls_count_out(&ep->counters, size);
  return true;
}

/* ── accepting ── */

/*
 * A port that was bound by another user (a server that has given up root) or is privileged gets no second socket. The
 * endpoint's own socket then serves this peer, as in the shared strategy.
 */
static bool needs_shared_socket(int number) { return number == EADDRINUSE || number == EACCES; }

static dtls_path *open_path(dtls_endpoint *ep) {
  const dtls_datagram *d = &ep->current.datagram;
  bool shared = ep->options.shared;
  int fd = shared ? -1 : dtls_udp_peer_socket(ep->fd, &d->local, &d->peer, ep->options.buffers);
  if (fd < 0 && !shared && !needs_shared_socket(errno)) return NULL;
  dtls_path *path = dtls_path_new(ep, &d->local, &d->peer, fd, true);
  if (!path && fd >= 0) close(fd);
  if (!path) errno = ENOMEM;
  if (!path || fd < 0 || dtls_intake_add_peer(ep, path)) return path;
  int saved = errno;
  dtls_path_free(path);
  errno = saved;
  return NULL;
}

/* An association for the verified hello, which it will read first. NULL: OpenSSL's queue may say why. */
static dtls_association *new_association(dtls_endpoint *ep, const dtls_path *path) {
  const dtls_datagram *d = &ep->current.datagram;
  dtls_clear_errors();
  dtls_association *a = dtls_association_new(ep->ctx, ep, ep->fd);
  if (a && dtls_association_set_peer(a, path) && dtls_listener_begin_untrusted(a, path, d->data, d->size)) return a;
  dtls_association_free(a);
  return NULL;
}

/* Puts the association on the path. Returns the unfinished one that has lost its place there, or NULL. */
static dtls_association *take_place(dtls_path *path, dtls_association *a) {
  dtls_association *displaced = path->successor                         ? path->successor
                                : path->current && !path->current->open ? path->current
                                                                        : NULL;
  bool in_place = displaced && displaced == path->current;
  if (displaced && !in_place) dtls_path_detach(displaced);
  dtls_path_attach(path, a);
  if (in_place) dtls_path_detach(displaced); /* the new one is promoted, so the path and its socket stay */
  return displaced;
}

dtls_association *dtls_endpoint_accept(dtls_endpoint *ep, dtls_association **displaced, dtls_failure *f) {
  if (!ep->current.verified) {
    dtls_fail(f, "ERR_DTLS_PROTOCOL", "there is no verified hello to accept");
    return NULL;
  }
  dtls_path *path = dtls_paths_find(ep->paths, &ep->current.datagram.local, &ep->current.datagram.peer);
  bool fresh = path == NULL;
  if (fresh && !(path = open_path(ep))) {
    dtls_fail_system(f, errno, "cannot open a socket for the peer");
    return NULL;
  }
  dtls_association *a = new_association(ep, path);
  if (!a) {
    if (fresh) dtls_path_free(path);
    dtls_fail_openssl(f, "ENOMEM", "cannot accept the peer");
    return NULL;
  }
  *displaced = take_place(path, a);
  deliver(ep, a);
  ep->current.verified = false;
  dtls_path_pace(path, a->retransmit.first_timeout);
  return a;
}
