/* Datagrams of other protocols on the port of an association (RFC 7983). Nobody has authenticated them. */
#ifndef DTLS_ASSOCIATION_MULTIPLEX_H
#define DTLS_ASSOCIATION_MULTIPLEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "association/queue.h"
#include "association/types.h"
#include "base/failure.h"

typedef struct {
  bool wanted;      /* the application asks for them; they are dropped otherwise */
  dtls_queue queue; /* those that an association met in a socket of its own, until the application takes them */
} dtls_others;

bool dtls_multiplex_is_other_untrusted(const uint8_t *data, size_t size);  /* by its first byte */
bool dtls_multiplex_check(const char *data, size_t size, dtls_failure *f); /* whether it may be sent */
dtls_association *dtls_multiplex_taker(const dtls_path *path); /* the one whose application asks for them; NULL: none */
void dtls_multiplex_keep(dtls_association *a, const uint8_t *data, size_t size);

#endif
