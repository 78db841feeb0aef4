/*
 * wolfSSL on one end of an association: PROGRAM client|server IP PORT cert CERT KEY CA | psk IDENTITY KEY.
 * peer.h says what such a program does with its standard input and output.
 */
#include <wolfssl/options.h>
#include <wolfssl/ssl.h>
#include "peer.h"

static struct peer peer;

static unsigned take_key(unsigned char *key, unsigned longest) {
  unsigned length = (unsigned)strlen(peer.secret);
  if (length > longest) return 0;
  memcpy(key, peer.secret, length);
  return length;
}

static unsigned client_key(WOLFSSL *ssl, const char *hint, char *identity, unsigned longest_identity, unsigned char *key,
                           unsigned longest) {
  (void)ssl, (void)hint;
  snprintf(identity, longest_identity, "%s", peer.identity);
  return take_key(key, longest);
}

static unsigned server_key(WOLFSSL *ssl, const char *identity, unsigned char *key, unsigned longest) {
  (void)ssl;
  return strcmp(identity, peer.identity) == 0 ? take_key(key, longest) : 0;
}

static void check(WOLFSSL *ssl, int result, const char *what) {
  if (result == WOLFSSL_SUCCESS) return;
  char text[WOLFSSL_MAX_ERROR_SZ] = "";
  int error = ssl ? wolfSSL_get_error(ssl, result) : result;
  fprintf(stderr, "%s: %d %s\n", what, error, wolfSSL_ERR_error_string((unsigned long)error, text));
  exit(1);
}

static WOLFSSL_CTX *make_context(void) {
  WOLFSSL_CTX *context = wolfSSL_CTX_new(peer.server ? wolfDTLSv1_2_server_method() : wolfDTLSv1_2_client_method());
  if (peer.psk) {
    wolfSSL_CTX_set_psk_client_callback(context, client_key);
    wolfSSL_CTX_set_psk_server_callback(context, server_key);
    check(NULL, wolfSSL_CTX_set_cipher_list(context, "ECDHE-PSK-CHACHA20-POLY1305:ECDHE-PSK-AES128-GCM-SHA256:"
                                                     "PSK-AES128-GCM-SHA256:PSK-CHACHA20-POLY1305"), "suites");
  } else {
    check(NULL, wolfSSL_CTX_use_certificate_chain_file(context, peer.cert), peer.cert);
    check(NULL, wolfSSL_CTX_use_PrivateKey_file(context, peer.key, WOLFSSL_FILETYPE_PEM), peer.key);
    check(NULL, wolfSSL_CTX_load_verify_locations(context, peer.ca, NULL), peer.ca);
    wolfSSL_CTX_set_verify(context, WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
  }
  return context;
}

static void receive_messages(WOLFSSL *ssl) {
  unsigned char data[PEER_LONGEST];
  do {
    int got = wolfSSL_read(ssl, data, sizeof data);
    if (got > 0) {
      peer_received(data, (size_t)got);
    } else {
      int error = wolfSSL_get_error(ssl, got);
      if (error == WOLFSSL_ERROR_ZERO_RETURN || (wolfSSL_get_shutdown(ssl) & WOLFSSL_RECEIVED_SHUTDOWN)) peer_closed();
      if (error == WOLFSSL_ERROR_WANT_READ) return;
      check(ssl, got, "read");
    }
  } while (wolfSSL_pending(ssl));
}

static WOLFSSL *handshake(WOLFSSL_CTX *context, int fd, WOLFSSL_SESSION *session) {
  WOLFSSL *ssl = wolfSSL_new(context);
  wolfSSL_set_fd(ssl, fd);
  wolfSSL_dtls_set_using_nonblock(ssl, 0);
  if (!peer.server) check(ssl, wolfSSL_UseSessionTicket(ssl), "ticket");
  if (!peer.server && !peer.psk) check(ssl, wolfSSL_check_domain_name(ssl, "localhost"), "name");
  if (session) check(ssl, wolfSSL_set_session(ssl, session), "session");
  check(ssl, peer.server ? wolfSSL_accept(ssl) : wolfSSL_connect(ssl), "handshake");
  peer_connected(wolfSSL_get_cipher(ssl));
  return ssl;
}

static WOLFSSL *resume(WOLFSSL_CTX *context, int fd, WOLFSSL *before) {
  WOLFSSL_SESSION *session = wolfSSL_get1_session(before);
  wolfSSL_shutdown(before);
  wolfSSL_free(before);
  WOLFSSL *ssl = handshake(context, fd, session);
  wolfSSL_SESSION_free(session);
  return ssl;
}

int main(int argc, char **argv) {
  peer = peer_options(argc, argv);
  wolfSSL_Init();
  WOLFSSL_CTX *context = make_context();
  int fd = peer_socket(&peer, "wolfSSL " LIBWOLFSSL_VERSION_STRING);
  WOLFSSL *ssl = handshake(context, fd, NULL);

  unsigned char line[PEER_LONGEST];
  for (;;) {
    ssize_t length = peer_wait(fd, line);
    if (length == PEER_READABLE) receive_messages(ssl);
    else if (length == PEER_EMPTY) wolfSSL_write(ssl, line, 0);
    else if (length == PEER_AGAIN) ssl = resume(context, fd, ssl);
    else if (length <= 0 || wolfSSL_write(ssl, line, (int)length) <= 0) break;
  }
  wolfSSL_shutdown(ssl);
  return 0;
}
