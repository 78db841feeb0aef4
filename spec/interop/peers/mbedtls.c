/*
 * Mbed TLS on one end of an association: PROGRAM client|server IP PORT cert CERT KEY CA | psk IDENTITY KEY.
 * peer.h says what such a program does with its standard input and output.
 */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_cookie.h>
#include <mbedtls/timing.h>
#include <mbedtls/version.h>
#include "peer.h"

static mbedtls_ssl_context ssl;
static mbedtls_ssl_config config;
static mbedtls_x509_crt own, ca;
static mbedtls_pk_context key;
static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context drbg;
static mbedtls_ssl_cookie_ctx cookies;
static mbedtls_timing_delay_context timer;

static int check(int result, const char *what) {
  if (result >= 0) return result;
  char text[128];
  mbedtls_strerror(result, text, sizeof text);
  fprintf(stderr, "%s: -0x%04x %s\n", what, (unsigned)-result, text);
  exit(1);
}

static int send_datagram(void *fd, const unsigned char *data, size_t length) {
  ssize_t sent = send(*(int *)fd, data, length, 0);
  return sent < 0 ? MBEDTLS_ERR_SSL_INTERNAL_ERROR : (int)sent;
}

static int receive_datagram(void *fd, unsigned char *data, size_t length, uint32_t ms) {
  struct pollfd wait = { .fd = *(int *)fd, .events = POLLIN };
  if (poll(&wait, 1, ms ? (int)ms : -1) == 0) return MBEDTLS_ERR_SSL_TIMEOUT;
  ssize_t got = recv(*(int *)fd, data, length, 0);
  return got < 0 ? MBEDTLS_ERR_SSL_WANT_READ : (int)got;
}

static void load_credentials(const struct peer *peer) {
  if (peer->psk) {
    check(mbedtls_ssl_conf_psk(&config, (const unsigned char *)peer->secret, strlen(peer->secret),
                               (const unsigned char *)peer->identity, strlen(peer->identity)), "psk");
    return;
  }
  check(mbedtls_x509_crt_parse_file(&own, peer->cert), peer->cert);
  check(mbedtls_pk_parse_keyfile(&key, peer->key, NULL), peer->key);
  check(mbedtls_x509_crt_parse_file(&ca, peer->ca), peer->ca);
  check(mbedtls_ssl_conf_own_cert(&config, &own, &key), "own certificate");
  mbedtls_ssl_conf_ca_chain(&config, &ca, NULL);
  mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_REQUIRED);
}

static void handshake(int fd, const struct peer *peer) {
  for (;;) {
    if (peer->server) check(mbedtls_ssl_set_client_transport_id(&ssl, (const unsigned char *)&fd, sizeof fd), "id");
    int result = mbedtls_ssl_handshake(&ssl);
    if (result == 0) break;
    if (result != MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED) check(result, "handshake");
    check(mbedtls_ssl_session_reset(&ssl), "reset");
  }
  peer_connected(mbedtls_ssl_get_ciphersuite(&ssl));
}

static void resume(int fd, const struct peer *peer) {
  mbedtls_ssl_session session;
  mbedtls_ssl_session_init(&session);
  check(mbedtls_ssl_get_session(&ssl, &session), "session");
  check(mbedtls_ssl_close_notify(&ssl), "close");
  check(mbedtls_ssl_session_reset(&ssl), "reset");
  check(mbedtls_ssl_set_session(&ssl, &session), "session");
  mbedtls_ssl_session_free(&session);
  handshake(fd, peer);
}

static void receive_messages(void) {
  unsigned char data[PEER_LONGEST];
  do {
    int got = mbedtls_ssl_read(&ssl, data, sizeof data);
    if (got == MBEDTLS_ERR_SSL_WANT_READ || got == MBEDTLS_ERR_SSL_TIMEOUT) return;
    if (got == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) peer_closed();
    if (got == MBEDTLS_ERR_SSL_CLIENT_RECONNECT) return;
    peer_received(data, (size_t)check(got, "read"));
  } while (mbedtls_ssl_check_pending(&ssl));
}

int main(int argc, char **argv) {
  struct peer peer = peer_options(argc, argv);
  mbedtls_ssl_init(&ssl);
  mbedtls_ssl_config_init(&config);
  mbedtls_x509_crt_init(&own);
  mbedtls_x509_crt_init(&ca);
  mbedtls_pk_init(&key);
  mbedtls_entropy_init(&entropy);
  mbedtls_ctr_drbg_init(&drbg);
  mbedtls_ssl_cookie_init(&cookies);
  check(mbedtls_ctr_drbg_seed(&drbg, mbedtls_entropy_func, &entropy, NULL, 0), "seed");
  check(mbedtls_ssl_config_defaults(&config, peer.server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                    MBEDTLS_SSL_TRANSPORT_DATAGRAM, MBEDTLS_SSL_PRESET_DEFAULT), "defaults");
  mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &drbg);
  check(mbedtls_ssl_cookie_setup(&cookies, mbedtls_ctr_drbg_random, &drbg), "cookies");
  mbedtls_ssl_conf_dtls_cookies(&config, mbedtls_ssl_cookie_write, mbedtls_ssl_cookie_check, &cookies);
  load_credentials(&peer);
  check(mbedtls_ssl_setup(&ssl, &config), "setup");
  if (!peer.server) check(mbedtls_ssl_set_hostname(&ssl, "localhost"), "name");

  int fd = peer_socket(&peer, "Mbed TLS " MBEDTLS_VERSION_STRING);
  mbedtls_ssl_set_bio(&ssl, &fd, send_datagram, NULL, receive_datagram);
  mbedtls_ssl_set_timer_cb(&ssl, &timer, mbedtls_timing_set_delay, mbedtls_timing_get_delay);
  handshake(fd, &peer);

  unsigned char line[PEER_LONGEST];
  for (;;) {
    ssize_t length = peer_wait(fd, line);
    if (length == PEER_READABLE) receive_messages();
    else if (length == PEER_EMPTY) check(mbedtls_ssl_write(&ssl, line, 0), "write");
    else if (length == PEER_AGAIN) resume(fd, &peer);
    else if (length > 0) check(mbedtls_ssl_write(&ssl, line, (size_t)length), "write");
    else break;
  }
  check(mbedtls_ssl_close_notify(&ssl), "close");
  return 0;
}
