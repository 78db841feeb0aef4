/*
 * What associations of a shared socket send during a turn of the event loop waits in the outbox of their endpoint, whose counters
 * and theirs are told what became of it. As long as something waits there, everything else waits behind it.
 */
#include "association/deferral.h"

#include "association/association.h"
#include "association/bio.h"
#include "association/endpoint.h"
#include "base/fork.h"

static dtls_association *of_sender(dtls_sender *sender) {
  return (dtls_association *)(void *)((char *)sender - offsetof(dtls_association, output.sender));
}

static void on_told(void *whom, dtls_sender *sender, size_t size, int error) {
  dtls_endpoint *ep = whom;
  if (sender && error == 0)
    dtls_association_count_out(of_sender(sender), size);
  else if (sender)
    dtls_bio_failed(of_sender(sender), error);
  else if (error == 0)
    dtls_count_out(&ep->counters, size);
  else
    ep->counters.drops[dtls_socket_drop_reason(error)]++;
}

bool dtls_deferral_open(dtls_endpoint *ep) {
  ep->deferral.box = dtls_outbox_new(ep->fd, on_told, ep);
  return ep->deferral.box != NULL;
}

void dtls_deferral_begin(dtls_endpoint *ep) { ep->deferral.defers = true; }

/* What the parent process has deferred the parent sends. */
static bool is_parents(const dtls_deferral *d) { return d->fork_generation != dtls_fork_generation(); }

bool dtls_deferral_end(dtls_endpoint *ep) {
  dtls_deferral *d = &ep->deferral;
  d->defers = false;
  if (!d->box || dtls_outbox_is_empty(d->box)) return true;
  if (!is_parents(d)) return dtls_outbox_flush(d->box);
  dtls_outbox_clear(d->box);
  return true;
}

void dtls_deferral_settle(dtls_endpoint *ep) {
  bool defers = ep->deferral.defers;
  (void)dtls_deferral_end(ep);
  ep->deferral.defers = defers;
}

void dtls_deferral_close(dtls_endpoint *ep) {
  (void)dtls_deferral_end(ep);
  dtls_outbox_free(ep->deferral.box);
  ep->deferral.box = NULL;
}

bool dtls_deferral_applies(const dtls_association *a) {
  const dtls_endpoint *ep = a->endpoint;
  if (!ep || ep->fd < 0 || !a->path || a->path->fd >= 0) return false;
  return ep->deferral.box && (ep->deferral.defers || !dtls_outbox_is_empty(ep->deferral.box));
}

bool dtls_deferral_add(dtls_association *a, const char *data, size_t size) {
  dtls_deferral *d = &a->endpoint->deferral;
  if (is_parents(d)) dtls_outbox_clear(d->box);
  d->fork_generation = dtls_fork_generation();
  return dtls_outbox_add(d->box, &a->output.sender, &a->path->local, &a->path->peer, data, size,
                         size <= a->mtu.payload);
}

void dtls_deferral_forget(dtls_association *a) {
  dtls_outbox *box = a->endpoint ? a->endpoint->deferral.box : NULL;
  if (box) dtls_outbox_forget(box, &a->output.sender);
}
