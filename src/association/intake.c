/*
 * Datagrams of an endpoint's sockets, in batches: its own, and in the connected strategy those of its peers. What the socket of a peer
 * still has when it is closed waits in a queue and comes first. Owns the batch and the queue.
 */
#include "association/intake.h"

#include <errno.h>
#include <limits.h>
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
  ep->intake.left = UINT_MAX;
  ep->intake.batch = dtls_batch_new();
  return ep->intake.batch != NULL;
}

void dtls_intake_close(dtls_endpoint *ep) {
  dtls_intake_release(ep);
  dtls_queue_clear(&ep->intake.requeued);
  dtls_batch_free(ep->intake.batch);
  ep->intake.batch = NULL;
}

/* ── what the sockets have ── */

/* A peer socket has failed, or tells what ICMP has brought: the association that reads it is told. */
static void note_failure(dtls_endpoint *ep, int number) {
  dtls_association *reader = ep->intake.path->current;
  ep->intake.failed = true;
  ep->intake.exhausted = dtls_socket_is_final(number);
  if (ep->intake.exhausted)
    reader->input.socket_error = number;
  else
    dtls_bio_failed(reader, number);
}

/* A batch of a peer socket. After fork() the socket is the parent's as well, which goes on to read it. */
static void receive_of_peer(dtls_endpoint *ep) {
  const dtls_path *path = ep->intake.path;
  if (path->fork_generation != dtls_fork_generation()) {
    ep->intake.failed = ep->intake.exhausted = true; /* every call of its association says so */
    return;
  }
  if (dtls_batch_receive(ep->intake.batch, path->fd, &path->local))
    ep->intake.exhausted = !dtls_batch_is_full(ep->intake.batch);
  else if (errno == EAGAIN)
    ep->intake.exhausted = true;
  else
    note_failure(ep, errno);
}

/* A batch of the endpoint's own socket. An error that the kernel reports, which takes one read, is no reason to leave the datagrams
   behind it. */
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

static void receive(dtls_endpoint *ep) {
  if (ep->intake.exhausted) return;
  if (ep->intake.path)
    receive_of_peer(ep);
  else
    receive_of_all(ep);
}

unsigned dtls_intake_turn(dtls_endpoint *ep, unsigned datagrams, const dtls_association *reader) {
  dtls_path *path = reader ? reader->path : NULL;
  ep->intake.left = datagrams;
  ep->intake.path = path && path->fd >= 0 ? path : NULL;
  ep->intake.exhausted = ep->intake.failed = false;
  bool in_use = ep->current.datagram.data; /* the one that was taken last, as long as no other one is asked for */
  if (!in_use && !dtls_batch_pending(ep->intake.batch)) receive(ep);
  return dtls_batch_pending(ep->intake.batch) + (unsigned)ep->intake.requeued.count;
}

void dtls_intake_abandon(dtls_endpoint *ep, const dtls_path *path) {
  if (ep->intake.path != path) return;
  ep->intake.path = NULL;
  ep->intake.exhausted = true;
  ep->intake.failed = false;
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

/* A batch is brought to its end even when the turn is over. */
bool dtls_intake_take(dtls_endpoint *ep, dtls_datagram *out) {
  bool over = ep->intake.left == 0;
  if (!over) ep->intake.left--;
  if (ep->intake.requeued.oldest && !over) {
    take_requeued(ep, out);
    return true;
  }
  if (!over && !dtls_batch_pending(ep->intake.batch)) receive(ep);
  if (!dtls_batch_next(ep->intake.batch, out)) {
    if (!ep->intake.failed) ep->intake.exhausted = false; /* the next call may come without a turn */
    return false;
  }
  dtls_count_in(&ep->counters, out->size);
  return true;
}

void dtls_intake_release(dtls_endpoint *ep) {
  dtls_queued_free(ep->intake.taken);
  ep->intake.taken = NULL;
}

dtls_association *dtls_intake_failed(dtls_endpoint *ep) {
  if (!ep->intake.failed) return NULL;
  ep->intake.failed = false;
  return ep->intake.path->current;
}

bool dtls_intake_has_requeued(const dtls_endpoint *ep) { return ep->intake.requeued.oldest != NULL; }

bool dtls_intake_pending(const dtls_endpoint *ep) {
  return dtls_intake_has_requeued(ep) || dtls_batch_pending(ep->intake.batch);
}

/* ── what a socket has when it is closed ── */

/* Copies a datagram for later dispatch. */
static void requeue(dtls_endpoint *ep, const dtls_path *path, const dtls_address *peer, const uint8_t *data,
                    size_t size) {
  origin from = {.local = path->local, .peer = *peer};
  if (!dtls_queue_add(&ep->intake.requeued, REQUEUED_MAX, &from, sizeof from, data, size))
    ep->counters.drops[DTLS_DROP_QUEUE]++;
}

/*
 * What a peer socket still holds when it is closed: the port's other traffic, of which the kernel gives it all between bind and
 * connect, and what came behind the association's last datagram. An ICMP error takes one read and is no reason to leave the
 * datagrams behind it.
 */
void dtls_intake_drain(dtls_endpoint *ep, const dtls_path *path) {
  uint8_t data[DTLS_DATAGRAM_MAX];
  for (int i = 0; i < DTLS_DRAIN_MAX; i++) {
    dtls_address sender;
    ssize_t n = dtls_udp_receive(path->fd, data, sizeof data, &sender);
    if (n >= 0) dtls_count_in(&ep->counters, (size_t)n);
    if (n > (ssize_t)sizeof data) {
      ep->counters.drops[DTLS_DROP_LENGTH]++;
    } else if (n >= 0) {
      requeue(ep, path, &sender, data, (size_t)n);
    } else if (errno == EAGAIN || dtls_socket_is_final(errno)) {
      return;
    } else {
      ep->counters.drops[dtls_socket_drop_reason(errno)]++;
    }
  }
}
