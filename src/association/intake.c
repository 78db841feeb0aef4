/*
 * Datagrams of an endpoint's sockets, in batches: its own, and in the connected strategy those of its peers. What the socket of a peer
 * still has when it is closed waits in a queue and comes first. Owns the batch and the queue.
 */
#include "association/intake.h"

#include <errno.h>
#include <string.h>

#include "association/association.h"
#include "association/endpoint.h"
#include "base/fork.h"

/* Whose a requeued datagram is: in front of its bytes. */
typedef struct {
  dtls_address local, peer;
} origin;

static const dtls_queue_limit REQUEUED_MAX = {.count = 1024,
                                              .bytes = (size_t)1024 * (DTLS_DATAGRAM_MAX + sizeof(origin))};

bool dtls_intake_open(dtls_endpoint *ep) {
  ep->intake.batch = dtls_batch_new();
  return ep->intake.batch != NULL;
}

void dtls_intake_close(dtls_endpoint *ep) {
  dtls_intake_release(ep);
  dtls_queue_clear(&ep->intake.requeued);
  dtls_batch_free(ep->intake.batch);
  ep->intake.batch = NULL;
  dtls_watch_free(ep->intake.peers);
  ep->intake.peers = NULL;
}

/* ── the sockets of peers ── */

static bool has_own_peers(const dtls_endpoint *ep) {
  return ep->intake.peers && !dtls_watch_is_foreign(ep->intake.peers);
}

int dtls_intake_peers_fd(const dtls_endpoint *ep) { return has_own_peers(ep) ? dtls_watch_fd(ep->intake.peers) : -1; }

/* A child process that listens on has a watch of its own, and keeps its parent's open for as long: the event loop may still have it. */
bool dtls_intake_add_peer(dtls_endpoint *ep, dtls_path *path) {
  if (!has_own_peers(ep)) {
    dtls_watch *own = dtls_watch_new(ep->intake.peers);
    if (!own) return false;
    ep->intake.peers = own;
  }
  return dtls_watch_add(ep->intake.peers, path->fd, path);
}

static bool is_watched(const dtls_path *path) {
  return path->fd >= 0 && path->fork_generation == dtls_fork_generation() && path->endpoint->intake.peers;
}

void dtls_intake_remove_peer(dtls_endpoint *ep, const dtls_path *path) {
  if (is_watched(path)) dtls_watch_remove(ep->intake.peers, path->fd, path);
  if (ep->intake.path == path) ep->intake.news = DTLS_NO_NEWS;
}

void dtls_intake_await_room(dtls_association *a) {
  a->output.awaits_room = true;
  if (is_watched(a->path)) dtls_watch_room(a->endpoint->intake.peers, a->path->fd, a->path, true);
}

static void tell(dtls_endpoint *ep, dtls_path *path, dtls_news news) {
  ep->intake.path = path;
  ep->intake.news = news;
}

dtls_news dtls_intake_news(dtls_endpoint *ep, dtls_association **out) {
  dtls_news news = ep->intake.news;
  const dtls_path *path = ep->intake.path;
  ep->intake.news = DTLS_NO_NEWS;
  if (news != DTLS_NO_NEWS) *out = path->current;
  if (news != DTLS_SOCKET_HAS_ROOM) return news;
  if (path->successor && path->successor->output.awaits_room) {
    *out = path->successor;
    if (path->current->output.awaits_room) ep->intake.news = news; /* which is told next */
  }
  (*out)->output.awaits_room = false;
  return news;
}

/* What a peer's socket has. Its association is told of an error, or of what ICMP has brought. */
static void receive_of_peer(dtls_endpoint *ep, dtls_path *path) {
  if (dtls_batch_receive(ep->intake.batch, path->fd, &path->local)) {
    if (dtls_batch_is_full(ep->intake.batch)) ep->intake.exhausted = false;
    return;
  }
  if (errno == EAGAIN) return;
  if (dtls_socket_is_final(errno))
    path->current->input.socket_error = errno;
  else
    dtls_bio_failed(path->current, errno);
  tell(ep, path, DTLS_SOCKET_FAILED);
}

/* After fork() the sockets are the parent's as well, which goes on to read them: every call of their associations says so. They are
   no datagrams, and all of them are told in one turn: the descriptor that tells of them is not watched any more after it. */
static void give_up_parents(dtls_endpoint *ep) {
  dtls_path *path = dtls_paths_take_foreign(ep->paths);
  ep->intake.exhausted = path == NULL;
  if (!path) return;
  ep->intake.left++;
  tell(ep, path, DTLS_SOCKET_FAILED);
}

/* One socket after the other, until the batch is full. What is left then is ready at the next look, too. */
static void receive_of_peers(dtls_endpoint *ep) {
  dtls_watch *peers = ep->intake.peers;
  dtls_ready ready;
  while (ep->intake.news == DTLS_NO_NEWS && !dtls_batch_is_full(ep->intake.batch)) {
    if (!dtls_watch_next(peers, &ready)) {
      if (ep->intake.exhausted) return;
      ep->intake.exhausted = !dtls_watch_look(peers);
    } else if (ready.writes) {
      dtls_path *path = ready.of;
      dtls_watch_room(peers, path->fd, path, false);
      tell(ep, path, DTLS_SOCKET_HAS_ROOM);
    } else {
      receive_of_peer(ep, ready.of);
    }
  }
}

/* ── the endpoint's own socket ── */

/* An error that the kernel reports, which takes one read, is no reason to leave the datagrams behind it. */
static void receive_of_all(dtls_endpoint *ep) {
  for (int reads = 0; reads < DTLS_READS_MAX && !ep->intake.exhausted; reads++) {
    if (dtls_batch_receive(ep->intake.batch, ep->fd, &ep->bound)) {
      ep->intake.exhausted = !dtls_batch_is_full(ep->intake.batch);
      return;
    }
    if (errno == EAGAIN || dtls_socket_is_final(errno))
      ep->intake.exhausted = true;
    else
      ep->counters.drops[dtls_socket_drop_reason(errno)]++;
  }
}

/* ── turns ── */

static void receive(dtls_endpoint *ep) {
  if (ep->intake.news != DTLS_NO_NEWS) return; /* it comes first */
  if (!ep->intake.of_peers)
    receive_of_all(ep);
  else if (has_own_peers(ep))
    receive_of_peers(ep);
  else if (ep->intake.peers)
    give_up_parents(ep);
}

unsigned dtls_intake_turn(dtls_endpoint *ep, unsigned datagrams, bool of_peers) {
  ep->intake.left = datagrams;
  ep->intake.of_peers = of_peers;
  ep->intake.exhausted = false;
  bool in_use = ep->current.datagram.data; /* the one that was taken last, as long as no other one is asked for */
  if (!in_use && !dtls_batch_pending(ep->intake.batch)) receive(ep);
  return dtls_batch_pending(ep->intake.batch) + (unsigned)ep->intake.requeued.count;
}

static void take_requeued(dtls_endpoint *ep, dtls_datagram *out) {
  dtls_queued *entry = ep->intake.requeued.oldest;
  origin from;
  dtls_queue_take(&ep->intake.requeued, entry);
  memcpy(&from, entry->data, sizeof from);
  ep->intake.taken = entry;
  *out = (dtls_datagram){
      .data = entry->data + sizeof from, .size = entry->size - sizeof from, .local = from.local, .peer = from.peer};
}

bool dtls_intake_take(dtls_endpoint *ep, dtls_datagram *out) {
  if (ep->intake.left == 0) return false;
  ep->intake.left--;
  if (ep->intake.requeued.oldest) {
    take_requeued(ep, out);
    return true;
  }
  if (!dtls_batch_pending(ep->intake.batch)) receive(ep);
  if (!dtls_batch_next(ep->intake.batch, out)) return false;
  dtls_count_in(&ep->counters, out->size);
  return true;
}

void dtls_intake_release(dtls_endpoint *ep) {
  dtls_queued_free(ep->intake.taken);
  ep->intake.taken = NULL;
}

bool dtls_intake_has_requeued(const dtls_endpoint *ep) { return ep->intake.requeued.oldest != NULL; }

bool dtls_intake_pending(const dtls_endpoint *ep) {
  return dtls_intake_has_requeued(ep) || dtls_batch_pending(ep->intake.batch);
}

/* ── what a socket has when it is closed ── */

/* Copies a datagram for later dispatch. */
static void requeue(dtls_endpoint *ep, const dtls_datagram *d) {
  origin from = {.local = d->local, .peer = d->peer};
  dtls_count_in(&ep->counters, d->size);
  if (d->size > DTLS_DATAGRAM_MAX)
    ep->counters.drops[DTLS_DROP_LENGTH]++;
  else if (!dtls_queue_add(&ep->intake.requeued, REQUEUED_MAX, &from, sizeof from, d->data, d->size))
    ep->counters.drops[DTLS_DROP_QUEUE]++;
}

/* False: the socket had nothing, errno says why. */
static bool requeue_batch(dtls_endpoint *ep, dtls_batch *batch, const dtls_path *path) {
  dtls_datagram d;
  if (!dtls_batch_receive(batch, path->fd, &path->local)) return false;
  while (dtls_batch_next(batch, &d)) requeue(ep, &d);
  return true;
}

/*
 * What a peer socket still holds when it is closed: the port's other traffic, of which the kernel gives it all between bind and
 * connect, and what came behind the association's last datagram. An ICMP error takes one read and is no reason to leave the
 * datagrams behind it.
 */
void dtls_intake_drain(dtls_endpoint *ep, const dtls_path *path) {
  dtls_batch *rest = NULL; /* only for a socket that has something */
  for (int reads = 0; reads < DTLS_DRAIN_MAX; reads++) {
    if (rest ? requeue_batch(ep, rest, path) : dtls_udp_has_datagram(path->fd)) {
      if (!rest && !(rest = dtls_batch_new())) break;
      continue;
    }
    if (errno == EAGAIN || dtls_socket_is_final(errno)) break;
    ep->counters.drops[dtls_socket_drop_reason(errno)]++;
  }
  dtls_batch_free(rest);
}
