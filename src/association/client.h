/* The association of a client: on a connected socket, with the name that it asks for and the session that it offers. */
#ifndef DTLS_ASSOCIATION_CLIENT_H
#define DTLS_ASSOCIATION_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

#include "association/types.h"
#include "base/failure.h"
#include "base/openssl.h"
#include "wire/name.h"

typedef struct {
  dtls_name name;  /* of the server; size 0: none */
  bool check_name; /* its certificate must have the name */
  /* what resumes a session (d2i_SSL_SESSION); NULL: none. Not offered when it is of another name or context, or too
     old */
  const char *session;
  size_t session_size;
  bool duplicate; /* the association has a descriptor of its own, so that the caller may close its own at any time */
  /* the application asks for datagrams of other protocols, those that wait in the socket included */
  bool takes_others;
} dtls_client_options;

/* fd: a connected UDP socket, which stays the caller's. NULL: failure. */
dtls_association *dtls_client_new(SSL_CTX *ctx, int fd, const dtls_client_options *o, dtls_deferral *deferral,
                                  dtls_failure *f);

#endif
