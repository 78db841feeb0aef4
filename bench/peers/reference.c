/*
 * A plain server in C, to compare with: OpenSSL, epoll, DTLSv1_listen with stateless cookies, one connected socket for each
 * peer, nothing that a careful programmer would not do.
 *
 *   reference CERT KEY MODE          MODE: echo, push, pull, psk, as in load.c
 * Prints its port; each line on its standard input prints "CPU seconds, resident bytes".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

enum { MESSAGE_MAX = 16384, EVENTS = 256, SECRET = 32, COOKIE = 32, TICK = 100 /* ms */ };

typedef struct peer {
  int fd;
  SSL *ssl;
  int open;
  unsigned messages;
  struct peer *next, **link; /* of those whose handshake goes on */
} peer;

static SSL_CTX *ctx;
static SSL *listening_ssl;
static int listening, epoll;
static struct sockaddr_in own;
static unsigned char secret[SECRET];
static peer *shaking;
static enum { ECHO, PUSH, PULL, PSK } what;

static void die(const char *text) {
  perror(text);
  ERR_print_errors_fp(stderr);
  exit(1);
}

static int cookie_of(SSL *ssl, unsigned char out[COOKIE]) {
  BIO_ADDR *address = BIO_ADDR_new();
  unsigned char bytes[32];
  size_t size = sizeof bytes - 2;
  unsigned written = 0;
  unsigned short port;
  (void)BIO_dgram_get_peer(SSL_get_rbio(ssl), address);
  BIO_ADDR_rawaddress(address, bytes, &size);
  port = BIO_ADDR_rawport(address);
  memcpy(bytes + size, &port, 2);
  BIO_ADDR_free(address);
  return HMAC(EVP_sha256(), secret, SECRET, bytes, size + 2, out, &written) != NULL;
}

static int make_cookie(SSL *ssl, unsigned char *cookie, unsigned *size) {
  *size = COOKIE;
  return cookie_of(ssl, cookie);
}

static int check_cookie(SSL *ssl, const unsigned char *cookie, unsigned size) {
  unsigned char expected[COOKIE];
  return size == COOKIE && cookie_of(ssl, expected) && CRYPTO_memcmp(expected, cookie, COOKIE) == 0;
}

static unsigned find_key(SSL *ssl, const char *name, unsigned char *key, unsigned key_max) {
  (void)ssl;
  if (strcmp(name, "bench") != 0 || key_max < 16) return 0;
  memset(key, 'k', 16);
  return 16;
}

static SSL *new_ssl(int fd) {
  SSL *ssl = SSL_new(ctx);
  BIO *bio = BIO_new_dgram(fd, BIO_NOCLOSE);
  if (!ssl || !bio) die("SSL_new");
  SSL_set_bio(ssl, bio, bio);
  SSL_set_options(ssl, SSL_OP_COOKIE_EXCHANGE | SSL_OP_NO_QUERY_MTU | SSL_OP_NO_RENEGOTIATION);
  SSL_set_mtu(ssl, 1472);
  SSL_set_accept_state(ssl);
  return ssl;
}

static void finish(peer *p) {
  if (p->link) {
    *p->link = p->next;
    if (p->next) p->next->link = p->link;
  }
  SSL_free(p->ssl);
  close(p->fd);
  free(p);
}

static void answer(peer *p, const char *data, int size) {
  if (what == ECHO || what == PSK) {
    SSL_write(p->ssl, data, size);
  } else if (what == PUSH) {
    if (++p->messages % 64 == 0) SSL_write(p->ssl, data, 1);
  } else {
    for (long n = strtol(data, NULL, 10); n > 0; n--) SSL_write(p->ssl, data, size);
  }
}

static void serve(peer *p) {
  char data[MESSAGE_MAX];
  int size;
  ERR_clear_error();
  if (!p->open) {
    int result = SSL_do_handshake(p->ssl);
    if (result != 1) {
      int error = SSL_get_error(p->ssl, result);
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) finish(p);
      return;
    }
    p->open = 1;
    *p->link = p->next;
    if (p->next) p->next->link = p->link;
    p->link = NULL;
  }
  for (int n = 0; n < 64; n++) {
    ERR_clear_error();
    size = SSL_read(p->ssl, data, sizeof data - 1);
    if (size <= 0) break;
    data[size] = '\0';
    answer(p, data, size);
  }
  if (size > 0) return;
  int error = SSL_get_error(p->ssl, size);
  if (error == SSL_ERROR_ZERO_RETURN) SSL_shutdown(p->ssl); /* close_notify is answered (RFC 5246 §7.2.1) */
  if (error != SSL_ERROR_WANT_READ) finish(p);
}

static void adopt(BIO_ADDR *address) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = BIO_ADDR_rawport(address)};
  size_t size = sizeof to.sin_addr;
  int on = 1;
  peer *p = calloc(1, sizeof *p);
  if (!p) return;
  BIO_ADDR_rawaddress(address, &to.sin_addr, &size);
  p->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(p->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (p->fd < 0 || bind(p->fd, (struct sockaddr *)&own, sizeof own) != 0 ||
      connect(p->fd, (struct sockaddr *)&to, sizeof to) != 0)
    die("peer socket");
  p->ssl = listening_ssl;
  BIO_set_fd(SSL_get_rbio(p->ssl), p->fd, BIO_NOCLOSE);
  BIO_ctrl(SSL_get_rbio(p->ssl), BIO_CTRL_DGRAM_SET_CONNECTED, 0, address);
  listening_ssl = new_ssl(listening);
  p->next = shaking;
  p->link = &shaking;
  if (p->next) p->next->link = &p->next;
  shaking = p;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = p};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, p->fd, &event) != 0) die("epoll");
  serve(p);
}

static void greet(void) {
  BIO_ADDR *address = BIO_ADDR_new();
  for (int n = 0; n < 64; n++) {
    ERR_clear_error();
    int result = DTLSv1_listen(listening_ssl, address);
    if (result > 0) {
      adopt(address);
    } else if (result < 0) {
      SSL_free(listening_ssl);
      listening_ssl = new_ssl(listening);
      break;
    } else if (BIO_should_retry(SSL_get_rbio(listening_ssl))) {
      break;
    }
  }
  BIO_ADDR_free(address);
}

/* The second number of the file is how many pages are resident. */
static long resident_pages(void) {
  char text[128] = "", *rest;
  FILE *file = fopen("/proc/self/statm", "r");
  if (!file) return 0;
  bool read = fgets(text, sizeof text, file) != NULL;
  fclose(file);
  if (!read) return 0;
  strtol(text, &rest, 10);
  return strtol(rest, NULL, 10);
}

static void tell(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("%.6f %ld\n",
         (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
             (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6,
         resident_pages() * sysconf(_SC_PAGESIZE));
  fflush(stdout);
}

/* Repeats flights that are due; looks for them once in a TICK, because there may be thousands of handshakes. */
static void repeat_flights(void) {
  static int64_t looked;
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  int64_t now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
  if (now < looked + TICK) return;
  looked = now;
  for (peer *p = shaking, *next; p; p = next) {
    next = p->next;
    DTLSv1_handle_timeout(p->ssl);
  }
}

static void make_context(const char *cert, const char *key) {
  ctx = SSL_CTX_new(DTLS_server_method());
  if (!ctx || SSL_CTX_use_certificate_chain_file(ctx, cert) != 1 ||
      SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 || RAND_bytes(secret, SECRET) != 1)
    die("context");
  SSL_CTX_set_min_proto_version(ctx, DTLS1_2_VERSION);
  SSL_CTX_set_cookie_generate_cb(ctx, make_cookie);
  SSL_CTX_set_cookie_verify_cb(ctx, check_cookie);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  if (what == PSK) SSL_CTX_set_psk_server_callback(ctx, find_key);
}

static void listen_on_loopback(void) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  socklen_t size = sizeof own;
  int on = 1, room = 4 << 20;
  listening = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(listening, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  setsockopt(listening, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  own = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (bind(listening, (struct sockaddr *)&own, sizeof own) != 0) die("bind");
  getsockname(listening, (struct sockaddr *)&own, &size);
  listening_ssl = new_ssl(listening);
  epoll = epoll_create1(0);
  epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event);
  event.data.ptr = stdin;
  epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
}

int main(int count, char **arguments) {
  static const char *const modes[] = {[ECHO] = "echo", [PUSH] = "push", [PULL] = "pull", [PSK] = "psk"};
  struct epoll_event events[EVENTS];
  char line[64];
  if (count != 4) return 2;
  while (strcmp(arguments[3], modes[what]) != 0)
    if (what++ == PSK) return 2;
  make_context(arguments[1], arguments[2]);
  listen_on_loopback();
  printf("%d\n", ntohs(own.sin_port));
  fflush(stdout);
  for (;;) {
    int n = epoll_wait(epoll, events, EVENTS, TICK);
    for (int i = 0; i < n; i++) {
      if (!events[i].data.ptr) {
        greet();
      } else if (events[i].data.ptr == stdin) {
        if (!fgets(line, sizeof line, stdin)) return 0;
        tell();
      } else {
        serve(events[i].data.ptr);
      }
    }
    repeat_flights();
  }
}
