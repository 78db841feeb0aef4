/*
 * Datagrams that leave one socket together: by one sendmmsg, and those of one sender that are equally long by one UDP GSO send
 * (UDP_SEGMENT, Linux 4.18), which passes the kernel's network stack once for all of them. Owns copies of the datagrams.
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
  dtls_sender *sender; /* NULL: forgotten */
  dtls_address local, peer;
  unsigned first, last; /* datagrams; first is NOTHING when all have left */
} flow;

/* Datagrams of one flow that leave by one message. */
typedef struct {
  flow *of;
  unsigned first, count;
} run;

struct dtls_outbox {
  int fd;
  dtls_outbox_told *told;
  void *whom;
  bool splits; /* the kernel has UDP_SEGMENT */
  unsigned flow_count, datagram_count;
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

dtls_outbox *dtls_outbox_new(int fd, dtls_outbox_told *told, void *whom) {
  dtls_outbox *box = OPENSSL_malloc(sizeof *box); /* not zeroed: most of it is never touched */
  if (!box) return NULL;
  box->fd = fd;
  box->told = told;
  box->whom = whom;
  box->splits = dtls_udp_splits(fd);
  box->run_count = box->vector_count = 0;
  dtls_outbox_clear(box);
  return box;
}

void dtls_outbox_free(dtls_outbox *box) { OPENSSL_free(box); }

void dtls_outbox_clear(dtls_outbox *box) {
  box->flow_count = box->datagram_count = 0;
  box->used = 0;
}

bool dtls_outbox_is_empty(const dtls_outbox *box) { return box->datagram_count == 0; }

/* ── in ── */

static flow *flow_of(const dtls_outbox *box, const dtls_sender *sender) {
  const flow *f = &box->flows[sender->flow];
  return sender->flow < box->flow_count && f->sender == sender ? (flow *)(uintptr_t)f : NULL;
}

static bool has_room(const dtls_outbox *box, const dtls_sender *sender, size_t size) {
  return box->datagram_count < DATAGRAMS_MAX && size <= BYTES_MAX - box->used &&
         (box->flow_count < FLOWS_MAX || flow_of(box, sender));
}

static flow *begin_flow(dtls_outbox *box, dtls_sender *sender, const dtls_address *local, const dtls_address *peer) {
  flow *f = &box->flows[box->flow_count];
  *f = (flow){.sender = sender, .local = *local, .peer = *peer, .first = NOTHING, .last = NOTHING};
  sender->flow = box->flow_count++;
  return f;
}

bool dtls_outbox_add(dtls_outbox *box, dtls_sender *sender, const dtls_address *local, const dtls_address *peer,
                     const void *data, size_t size, bool fits) {
  if (!has_room(box, sender, size)) dtls_outbox_flush(box);
  if (!has_room(box, sender, size)) {
    errno = EAGAIN;
    return false;
  }
  flow *f = flow_of(box, sender);
  if (!f) f = begin_flow(box, sender, local, peer);
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

void dtls_outbox_forget(dtls_outbox *box, dtls_sender *sender) {
  flow *f = flow_of(box, sender);
  if (f) f->sender = NULL;
}

/* ── out ── */

static void tell(const dtls_outbox *box, const flow *f, unsigned i, int error) {
  box->told(box->whom, f->sender, box->datagrams[i].size, error);
}

/* How many datagrams from the first of a flow on can leave as one: all as long as the first, but for the last, which may be shorter. */
static unsigned run_length(const dtls_outbox *box, const flow *f) {
  const datagram *first = &box->datagrams[f->first];
  unsigned count = 1;
  size_t total = first->size;
  if (!box->splits || !first->fits || !f->sender || f->sender->unsplit) return 1;
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
  dtls_udp_address(&message->msg_hdr, box->control[box->run_count], &f->local, &f->peer, segment);
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

/* A kernel or a device that cannot cut datagrams, as against a path that takes shorter ones only. */
static bool is_about_segments(int error) { return error == EIO || error == EOPNOTSUPP || error == ENOPROTOOPT; }

/* The datagrams of a run, one by one, since they could not leave together. False: the socket takes no more at the moment; the run
   has those that have not left. */
static bool send_apart(dtls_outbox *box, run *r, int error) {
  flow *f = r->of;
  bool any = false;
  unsigned i = r->first;
  for (unsigned n = 0; n < r->count; n++, i = box->datagrams[i].next) {
    const datagram *d = &box->datagrams[i];
    if (dtls_udp_send(box->fd, &f->local, &f->peer, box->bytes + d->offset, d->size) >= 0) {
      any = true;
      tell(box, f, i, 0);
    } else if (errno == EAGAIN) {
      r->first = i;
      return false;
    } else {
      tell(box, f, i, errno);
    }
  }
  if (any && is_about_segments(error)) box->splits = false;
  if (any && f->sender) f->sender->unsplit = true;
  return true;
}

/* What has failed: a run of one datagram for good. False: as above. */
static bool fail(dtls_outbox *box, run *r, int error) {
  if (r->count > 1) return send_apart(box, r, error);
  tell(box, r->of, r->first, error);
  return true;
}

static void succeed(const dtls_outbox *box, const run *r) {
  unsigned i = r->first;
  for (unsigned n = 0; n < r->count; n++, i = box->datagrams[i].next) tell(box, r->of, i, 0);
}

/* Sends the runs. False: the socket takes no more at the moment; what has not left is in its flows again. */
static bool submit(dtls_outbox *box) {
  unsigned at = 0;
  bool takes = true;
  while (at < box->run_count && takes) {
    int sent = send_many(box->fd, &box->messages[at], box->run_count - at);
    int error = errno;
    for (int i = 0; i < sent; i++) succeed(box, &box->runs[at++]);
    if (sent >= 0 || error == EINTR) continue;
    takes = error != EAGAIN && fail(box, &box->runs[at], error);
    if (takes) at++;
  }
  while (box->run_count > at) {
    const run *r = &box->runs[--box->run_count];
    r->of->first = r->first;
  }
  box->run_count = box->vector_count = 0;
  return takes;
}

bool dtls_outbox_flush(dtls_outbox *box) {
  for (unsigned i = 0; i < box->flow_count; i++) {
    flow *f = &box->flows[i];
    while (f->first != NOTHING) {
      add_run(box, f, run_length(box, f));
      if (box->run_count == RUNS_MAX && !submit(box)) return false;
    }
  }
  if (!submit(box)) return false;
  dtls_outbox_clear(box);
  return true;
}
