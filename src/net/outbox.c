/*
 * Datagrams that leave together: those of a socket that is connected to nobody by one sendmmsg, and those of one sender that are
 * equally long by one UDP GSO send (UDP_SEGMENT, Linux 4.18), which passes the kernel's network stack once for all of them. Owns
 * copies of the datagrams.
 */
#include "net/outbox.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <openssl/crypto.h>

#include "net/socket.h"

enum {
  FLOWS_MAX = 256,
  DATAGRAMS_MAX = 512,
  BYTES_MAX = 256 * 1024,
  RUNS_MAX = 64,             /* of one sendmmsg */
  SEGMENTS_MAX = 64,         /* of one run: the kernel's own limit */
  RUN_BYTES_MAX = 64 * 1000, /* IP's limit is 65,535 with all headers */
  NOTHING = DATAGRAMS_MAX    /* no datagram */
};

typedef struct {
  uint32_t offset, size;
  unsigned next; /* of its flow, or NOTHING */
  bool fits;
} datagram;

typedef struct {
  dtls_sender *sender; /* NULL: it has ended */
  int fd;
  bool connected; /* to the peer; else there are addresses */
  bool blocked;   /* the socket took no more at the last flush */
  dtls_address local, peer;
  unsigned first, last; /* datagrams; first is NOTHING when all have left */
} flow;

/* Datagrams of one flow that leave by one message. */
typedef struct {
  flow *of;
  unsigned first, count;
} run;

struct dtls_outbox {
  dtls_outbox_told *told;
  bool asked, splits; /* whether the kernel has UDP_SEGMENT: others would send the datagrams of a run as one */
  unsigned flow_count, datagram_count;
  unsigned announced; /* flows that dtls_outbox_blocked has been asked for */
  size_t used;
  unsigned run_count, vector_count;
  run runs[RUNS_MAX];
  dtls_message messages[RUNS_MAX];
  struct iovec vectors[DATAGRAMS_MAX];
  _Alignas(struct cmsghdr) uint8_t control[RUNS_MAX][DTLS_CONTROL_MAX];
  flow flows[FLOWS_MAX];
  datagram datagrams[DATAGRAMS_MAX];
  uint8_t bytes[BYTES_MAX];
};

dtls_outbox *dtls_outbox_new(dtls_outbox_told *told) {
  dtls_outbox *box = OPENSSL_malloc(sizeof *box); /* not zeroed: most of it is never touched */
  if (!box) return NULL;
  box->told = told;
  box->asked = false;
  box->run_count = box->vector_count = 0;
  dtls_outbox_clear(box);
  return box;
}

void dtls_outbox_free(dtls_outbox *box) { OPENSSL_free(box); }

void dtls_outbox_clear(dtls_outbox *box) {
  box->flow_count = box->datagram_count = box->announced = 0;
  box->used = 0;
}

/* ── flows ── */

static flow *flow_of(const dtls_outbox *box, const dtls_sender *sender) {
  const flow *f = &box->flows[sender->flow];
  return sender->flow < box->flow_count && f->sender == sender ? (flow *)(uintptr_t)f : NULL;
}

static bool has_room(const dtls_outbox *box, const dtls_sender *sender, size_t size) {
  return box->datagram_count < DATAGRAMS_MAX && size <= BYTES_MAX - box->used &&
         (box->flow_count < FLOWS_MAX || flow_of(box, sender));
}

bool dtls_outbox_waits(const dtls_outbox *box, const dtls_sender *sender) {
  const flow *f = flow_of(box, sender);
  return f && f->first != NOTHING;
}

static flow *begin_flow(dtls_outbox *box, dtls_sender *sender, dtls_route route) {
  flow *f = &box->flows[box->flow_count];
  *f = (flow){.sender = sender, .fd = route.fd, .connected = !route.peer, .first = NOTHING, .last = NOTHING};
  if (route.peer) {
    f->local = *route.local;
    f->peer = *route.peer;
  }
  if (!box->asked) box->splits = dtls_udp_splits(route.fd);
  box->asked = true;
  sender->flow = box->flow_count++;
  return f;
}

static bool is_blocked(const dtls_outbox *box, const dtls_sender *sender) {
  const flow *f = flow_of(box, sender);
  return f && f->blocked;
}

/* ── out ── */

/* Tells the sender that datagram i of its flow has left, or why not. */
static void tell(const dtls_outbox *box, const flow *f, unsigned i, int error) {
  box->told(f->sender, box->datagrams[i].size, error);
}

/* How many datagrams from the first of a flow on can leave as one: all as long as the first, but for the last, which may be shorter. */
static unsigned run_length(const dtls_outbox *box, const flow *f) {
  const datagram *first = &box->datagrams[f->first];
  unsigned count = 1;
  size_t total = first->size;
  if (!box->splits || !first->fits || f->sender->unsplit) return 1;
  for (unsigned i = first->next; i != NOTHING && count < SEGMENTS_MAX; i = box->datagrams[i].next) {
    const datagram *d = &box->datagrams[i];
    total += d->size;
    if (!d->fits || d->size > first->size || total > RUN_BYTES_MAX) break;
    count++;
    if (d->size < first->size) break;
  }
  return count;
}

/* The message of so many datagrams, from the first of a flow on, which leave the flow. */
static void add_run(dtls_outbox *box, flow *f, unsigned count) {
  dtls_message *message = &box->messages[box->run_count];
  run *r = &box->runs[box->run_count];
  struct iovec *vectors = &box->vectors[box->vector_count];
  size_t segment = count > 1 ? box->datagrams[f->first].size : 0;
  *r = (run){.of = f, .first = f->first, .count = count};
  for (unsigned i = 0; i < count; i++) {
    const datagram *d = &box->datagrams[f->first];
    vectors[i] = (struct iovec){.iov_base = box->bytes + d->offset, .iov_len = d->size};
    f->first = d->next;
  }
  *message = (dtls_message){.msg_hdr = {.msg_iov = vectors, .msg_iovlen = (uint16_t)count}};
  dtls_udp_address(&message->msg_hdr, box->control[box->run_count], f->connected ? NULL : &f->local,
                   f->connected ? NULL : &f->peer, segment);
  box->run_count++;
  box->vector_count += count;
}

/* sendmmsg where there is one; a seccomp filter without it gets one sendmsg after the other. */
static int send_many(int fd, dtls_message *messages, unsigned count) {
#if DTLS_HAS_MMSG
  int n = sendmmsg(fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n >= 0 || (errno != ENOSYS && errno != EPERM)) return n;
#else
  (void)count;
#endif
  return sendmsg(fd, &messages->msg_hdr, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -1 : 1;
}

/* A kernel, a device or a path that does not cut datagrams, as against a socket that fails whatever it sends. */
static bool is_about_segments(int error) {
  return error == EIO || error == EINVAL || error == EMSGSIZE || error == EOPNOTSUPP || error == ENOPROTOOPT;
}

/* What ICMP brought to a connected socket is about an earlier datagram; reporting it has cleared it, and nothing was sent. */
static bool is_earlier(const flow *f, int error) {
  return f->connected && (error == ECONNREFUSED || error == EMSGSIZE);
}

/* The datagrams of a run, one by one, since they could not leave together. False: the socket takes no more at the moment; the run
   has those that have not left. */
static bool send_apart(const dtls_outbox *box, run *r, int error) {
  const flow *f = r->of;
  bool any = false;
  unsigned i = r->first;
  for (unsigned n = 0; n < r->count; n++, i = box->datagrams[i].next) {
    const datagram *d = &box->datagrams[i];
    const void *bytes = box->bytes + d->offset;
    ssize_t sent = f->connected ? send(f->fd, bytes, d->size, MSG_DONTWAIT | MSG_NOSIGNAL)
                                : dtls_udp_send(f->fd, &f->local, &f->peer, bytes, d->size);
    if (sent < 0 && errno == EAGAIN) {
      r->first = i;
      return false;
    }
    any = any || sent >= 0;
    tell(box, f, i, sent >= 0 ? 0 : errno);
  }
  if (any && is_about_segments(error)) f->sender->unsplit = true;
  return true;
}

/* What has failed: a run of one datagram for good. heard: its sender has been told of this error. False: as above. */
static bool fail(const dtls_outbox *box, run *r, int error, bool heard) {
  if (r->count > 1) return send_apart(box, r, error);
  if (!heard) tell(box, r->of, r->first, error);
  return true;
}

static void succeed(const dtls_outbox *box, const run *r) {
  unsigned i = r->first;
  for (unsigned n = 0; n < r->count; n++, i = box->datagrams[i].next) tell(box, r->of, i, 0);
}

/* Runs that the socket does not take at the moment: their datagrams are in their flows again. */
static void put_back(dtls_outbox *box, unsigned from) {
  while (box->run_count > from) {
    const run *r = &box->runs[--box->run_count];
    r->of->first = r->first;
    r->of->blocked = true;
  }
  box->run_count = box->vector_count = 0;
}

/* Sends the runs, which are of one socket. */
static void submit(dtls_outbox *box) {
  unsigned at = 0, tried_again = RUNS_MAX;
  int earlier = 0;
  bool takes = true;
  while (at < box->run_count && takes) {
    run *r = &box->runs[at];
    int sent = send_many(r->of->fd, &box->messages[at], box->run_count - at);
    int error = errno;
    for (int i = 0; i < sent; i++) succeed(box, &box->runs[at++]);
    if (sent >= 0 || error == EINTR) continue;
    if (is_earlier(r->of, error) && tried_again != at) {
      tried_again = at;
      earlier = error;
      box->told(r->of->sender, 0, earlier);
      continue;
    }
    takes = error != EAGAIN && fail(box, r, error, tried_again == at && error == earlier);
    if (takes) at++;
  }
  put_back(box, at);
}

/* Makes runs of what the flow has, and sends them when there are enough. */
static void drain(dtls_outbox *box, flow *f) {
  while (f->first != NOTHING && !f->blocked) {
    if (box->run_count == RUNS_MAX || (box->run_count > 0 && box->runs[0].of->fd != f->fd))
      submit(box);
    else
      add_run(box, f, run_length(box, f));
  }
}

/* Datagrams that wait take the places of those that have left. */
static void compact(dtls_outbox *box) {
  unsigned place[DATAGRAMS_MAX], count = 0, flows = 0;
  bool waits[DATAGRAMS_MAX] = {false};
  size_t used = 0;
  for (unsigned i = 0; i < box->flow_count; i++) {
    for (unsigned at = box->flows[i].first; at != NOTHING; at = box->datagrams[at].next) waits[at] = true;
  }
  for (unsigned i = 0; i < box->datagram_count; i++) {
    datagram d = box->datagrams[i];
    if (!waits[i]) continue;
    if (d.offset != used) memmove(box->bytes + used, box->bytes + d.offset, d.size);
    d.offset = (uint32_t)used;
    used += d.size;
    place[i] = count;
    box->datagrams[count++] = d;
  }
  for (unsigned i = 0; i < count; i++) {
    unsigned *next = &box->datagrams[i].next;
    if (*next != NOTHING) *next = place[*next];
  }
  for (unsigned i = 0; i < box->flow_count; i++) {
    flow f = box->flows[i];
    if (f.first == NOTHING) continue;
    f.first = place[f.first];
    f.last = place[f.last];
    f.sender->flow = flows;
    box->flows[flows++] = f;
  }
  box->datagram_count = count;
  box->flow_count = flows;
  box->used = used;
}

/* Sends what waits, but for what a full socket keeps waiting: to try that for each datagram that needs room would be dear. */
static void make_room(dtls_outbox *box) {
  for (unsigned i = 0; i < box->flow_count; i++) drain(box, &box->flows[i]);
  submit(box);
  box->announced = 0;
  compact(box);
}

bool dtls_outbox_flush(dtls_outbox *box) {
  for (unsigned i = 0; i < box->flow_count; i++) box->flows[i].blocked = false;
  make_room(box);
  return box->datagram_count == 0;
}

/* ── in ── */

bool dtls_outbox_add(dtls_outbox *box, dtls_sender *sender, dtls_route route, const void *data, size_t size,
                     bool fits) {
  bool blocked = is_blocked(box, sender);
  if (!blocked && !has_room(box, sender, size)) make_room(box);
  if (blocked || is_blocked(box, sender) || !has_room(box, sender, size)) return false;
  flow *f = flow_of(box, sender);
  if (!f) f = begin_flow(box, sender, route);
  unsigned i = box->datagram_count++;
  box->datagrams[i] = (datagram){.offset = (uint32_t)box->used, .size = (uint32_t)size, .next = NOTHING, .fits = fits};
  memcpy(box->bytes + box->used, data, size);
  box->used += size;
  if (f->first == NOTHING)
    f->first = i;
  else
    box->datagrams[f->last].next = i;
  f->last = i;
  return true;
}

/* ── what does not leave ── */

dtls_sender *dtls_outbox_blocked(dtls_outbox *box) {
  while (box->announced < box->flow_count) {
    const flow *f = &box->flows[box->announced++];
    if (f->blocked && f->sender) return f->sender;
  }
  return NULL;
}

static void end(dtls_outbox *box, flow *f) {
  f->blocked = false;
  drain(box, f);
  submit(box);
  for (; f->first != NOTHING; f->first = box->datagrams[f->first].next) tell(box, f, f->first, EAGAIN);
  f->sender = NULL;
}

void dtls_outbox_end(dtls_outbox *box, dtls_sender *sender) {
  flow *f = flow_of(box, sender);
  if (f) end(box, f);
}

void dtls_outbox_end_socket(dtls_outbox *box, int fd) {
  for (unsigned i = 0; i < box->flow_count; i++) {
    if (box->flows[i].fd == fd && box->flows[i].sender) end(box, &box->flows[i]);
  }
}
