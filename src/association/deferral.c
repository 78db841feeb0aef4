/*
 * What associations send during a turn of the event loop waits in one outbox. They and their endpoints count what became of it. As
 * long as something of an association waits there, everything else that it sends waits behind.
 */
#include "association/deferral.h"

#include "association/association.h"
#include "association/bio.h"
#include "association/endpoint.h"
#include "base/fork.h"
#include "net/outbox.h"

struct dtls_deferral {
  unsigned refs;            /* the binding, endpoints and associations */
  bool defers;              /* what is sent now waits for the end of the turn */
  unsigned fork_generation; /* of the process that filled the box, base/fork.h */
  dtls_outbox *box;
};

static dtls_association *of_sender(dtls_sender *sender) {
  return (dtls_association *)(void *)((char *)sender - offsetof(dtls_association, output.sender));
}

static void on_told(dtls_sender *sender, size_t size, int error) {
  if (error == 0)
    dtls_association_count_out(of_sender(sender), size);
  else
    dtls_bio_failed(of_sender(sender), error);
}

/* ── life ── */

dtls_deferral *dtls_deferral_new(void) {
  dtls_deferral *d = OPENSSL_zalloc(sizeof *d);
  if (!d) return NULL;
  d->refs = 1;
  d->box = dtls_outbox_new(on_told);
  if (d->box) return d;
  OPENSSL_free(d);
  return NULL;
}

void dtls_deferral_ref(dtls_deferral *d) { d->refs++; }

void dtls_deferral_unref(dtls_deferral *d) {
  if (!d || --d->refs > 0) return;
  dtls_outbox_free(d->box);
  OPENSSL_free(d);
}

/* ── turns ── */

/* What the parent process has deferred the parent sends. */
static void drop_parents(dtls_deferral *d) {
  if (d->fork_generation != dtls_fork_generation()) dtls_outbox_clear(d->box);
  d->fork_generation = dtls_fork_generation();
}

void dtls_deferral_begin(dtls_deferral *d) { d->defers = true; }

bool dtls_deferral_end(dtls_deferral *d) {
  d->defers = false;
  drop_parents(d);
  return dtls_outbox_flush(d->box);
}

void dtls_deferral_settle(dtls_deferral *d) {
  bool defers = d->defers;
  (void)dtls_deferral_end(d);
  d->defers = defers;
}

dtls_association *dtls_deferral_blocked(dtls_deferral *d) {
  dtls_sender *sender = dtls_outbox_blocked(d->box);
  return sender ? of_sender(sender) : NULL;
}

/* ── associations ── */

/* The way of its datagrams. False: there is none. */
static bool route_of(const dtls_association *a, dtls_route *out) {
  const dtls_path *path = a->path;
  if (!path || (path->fd < 0 && (!a->endpoint || a->endpoint->fd < 0))) return false;
  if (path->fd >= 0)
    *out = (dtls_route){.fd = path->fd};
  else
    *out = (dtls_route){.fd = a->endpoint->fd, .local = &path->local, .peer = &path->peer};
  return true;
}

void dtls_deferral_join(dtls_deferral *d, dtls_association *a) {
  d->refs++;
  a->output.deferral = d;
}

bool dtls_deferral_holds(const dtls_association *a) {
  const dtls_deferral *d = a->output.deferral;
  return d && dtls_outbox_waits(d->box, &a->output.sender);
}

bool dtls_deferral_take(dtls_association *a, const char *data, size_t size) {
  dtls_deferral *d = a->output.deferral;
  dtls_route route;
  if (!d || (!d->defers && !dtls_deferral_holds(a)) || !route_of(a, &route)) return false;
  drop_parents(d);
  return dtls_outbox_add(d->box, &a->output.sender, route, data, size, size <= a->mtu.payload);
}

void dtls_deferral_leave(dtls_association *a) {
  dtls_deferral *d = a->output.deferral;
  if (!d) return;
  drop_parents(d);
  dtls_outbox_end(d->box, &a->output.sender);
}

void dtls_deferral_close(dtls_deferral *d, int fd) {
  drop_parents(d);
  dtls_outbox_end_socket(d->box, fd);
}
