/*
 * dtls_session_parse, with bytes from an application's store, and what a client does with a session that was found there.
 */
#include "fixed.h"

#include <stdlib.h>
#include <string.h>

#include "association/association.h"
#include "binding/context.h"
#include "identity/session.h"

#include <sanitizer/lsan_interface.h>

static const char name[] = "localhost";
static SSL_CTX *ctx;
static uint8_t bound_to[DTLS_DIGEST_SIZE];

static dtls_association *client(void) {
  dtls_association *a = dtls_association_new(ctx, NULL, -1);
  FUZZ_CHECK(a && dtls_session_bind(a->ssl, name, strlen(name)));
  return a;
}

/* A hello, which has nowhere to go. */
static void greet(dtls_association *a) {
  dtls_session_trim(a->ssl, a->mtu.payload);
  FUZZ_CHECK(SSL_do_handshake(a->ssl) != 1);
  ERR_clear_error();
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  ctx = dtls_context_check(fuzz_run("spec/fuzz/session.lua"), 2, false);
  dtls_association *a = client();
  unsigned size;
  greet(a);
  const unsigned char *digest = SSL_SESSION_get0_id_context(SSL_get0_session(a->ssl), &size);
  FUZZ_CHECK(size == sizeof bound_to);
  memcpy(bound_to, digest, size);
  dtls_association_free(a);
  return 0;
}

/* As if it had been made under the name and context that it is offered under. */
static void offer(SSL_SESSION *session) {
  dtls_association *a = client();
  SSL_SESSION_set1_id_context(session, bound_to, sizeof bound_to);
  if (dtls_session_offer(a->ssl, session, name)) greet(a);
  dtls_association_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  uint8_t *blob = malloc(size);
  if (size > 0) memcpy(blob, input, size);
  fuzz_fix(0);
  SSL_SESSION *session = dtls_session_parse(blob, size);
  FUZZ_CHECK(ERR_peek_error() == 0);
  if (session) {
    dtls_session_in_time(session);
    offer(session);
    SSL_SESSION_free(session);
  }
  free(blob);
  return 0;
}
