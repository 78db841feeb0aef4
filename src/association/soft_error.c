/* Soft errors: unauthenticated alerts and ICMP errors, which are kept until something valid follows or they count. */
#include "association/soft_error.h"

#include "association/association.h"
#include "base/clock.h"

void dtls_soft_error_note(dtls_association *a, int alert, int number) {
  dtls_soft_error *e = &a->soft_error;
  bool first = e->deadline == 0 || e->state != SSL_get_state(a->ssl);
  if (!first && (e->alert >= 0 || alert < 0)) return; /* an alert says more than the ICMP error before it */
  uint64_t until = dtls_now() + a->retransmit.interval;
  *e = (dtls_soft_error){.deadline = first || until < e->deadline ? until : e->deadline,
                         .alert = alert,
                         .number = number,
                         .state = SSL_get_state(a->ssl)};
}

void dtls_soft_error_clear(dtls_association *a) { a->soft_error = (dtls_soft_error){.alert = -1}; }
