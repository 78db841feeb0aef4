/* What one SSL knows beyond libssl: its making and its end. The files of this folder change what is in it. */
#include "identity/peer.h"

#include <string.h>

bool dtls_peer_init(dtls_peer *peer, SSL *ssl, const dtls_questions *questions) {
  dtls_config *c = dtls_config_of(SSL_get_SSL_CTX(ssl));
  *peer = (dtls_peer){.questions = questions, .base = c, .reject = c->verify.policy.reject};
  return SSL_set_app_data(ssl, peer) == 1;
}

void dtls_peer_free(dtls_peer *peer) {
  if (peer->keylog) OPENSSL_clear_free(peer->keylog, strlen(peer->keylog));
  OPENSSL_free(peer->overrides.groups);
  OPENSSL_free(peer->overrides.sigalgs);
  sk_X509_pop_free(peer->refusal.chain, X509_free);
  EVP_PKEY_free(peer->refusal.key);
  OPENSSL_free(peer->refusal.detail);
}
