/*
 * The load of the benchmarks: DTLS 1.2 clients, each with a socket, in one process with one event loop.
 *
 *   load HOST PORT MODE CLIENTS WINDOW SIZE SECONDS
 *
 * MODE  echo       each client keeps WINDOW messages of SIZE bytes under way; the server sends each back
 *       roam       the same, WINDOW messages of all clients together: when one is back, the next client in turn sends one
 *       trickle    the same, one message of each client and millisecond: a server that is idle most of the time
 *       push       each client sends as fast as its socket takes it; the server takes and counts, and answers every 64th
 *       pull       each client sends one message; the server answers with WINDOW messages, over and over
 *       handshake  each client connects, closes, and connects again
 *       resume     the same, with the session of the one before
 *       psk        the same, with a pre-shared key
 *       idle       the clients connect, and then stay open without a word
 *       half       the clients prove their addresses, and do not answer the server's flight
 *
 * Prints "ready clients=…" when the clients are open. Then each line on its standard input is a command: an empty one measures,
 * and prints what was counted in SECONDS as key=value; with a number so many clients connect, and it says again that they
 * are open.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "batch.h"

enum { MESSAGE_MAX = 16384, ROOM = 1 << 20, CLIENTS_MAX = 16384, CONNECTING_MAX = 64, ACKNOWLEDGED = 64 };
enum { LATENCIES_MAX = 1 << 20, NUMBER_AT = 8 /* behind what `pull` asks for */ };
static const uint64_t MILLISECOND = 1000000;

typedef enum { ECHO, ROAM, TRICKLE, PUSH, PULL, HANDSHAKE, RESUME, PSK, IDLE, HALF } mode;
static const char *const modes[] = {"echo",      "roam",   "trickle", "push", "pull",
                                    "handshake", "resume", "psk",     "idle", "half"};

typedef struct {
  int fd;
  SSL *ssl;
  SSL_SESSION *session;
  bool open;
  unsigned flights; /* of the server's, that have come */
  int64_t under_way;
  uint64_t began, sent_at, heard_at; /* ns: the handshake, the last message in each direction */
} client;

static SSL_CTX *ctx;
static struct sockaddr_in server;
static mode what;
static client *all;
static int clients, started, window, epoll, turn;
static size_t size;
static char message[MESSAGE_MAX];
static uint64_t duration; /* ns */
static bool measuring;
static uint64_t opened, received, sent, lost, handshakes, failures;
static uint32_t latencies[LATENCIES_MAX]; /* ns */
static size_t latency_count;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *text) {
  fprintf(stderr, "load: %s: %s\n", text, errno ? strerror(errno) : "OpenSSL");
  ERR_print_errors_fp(stderr);
  exit(1);
}

/* ── handshakes ── */

static bool connects_again(void) { return what == HANDSHAKE || what == RESUME || what == PSK; }

static void start(client *c) {
  int room = ROOM;
  c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0) die("socket");
  setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  BIO *bio = batch_bio(c->fd);
  c->ssl = SSL_new(ctx);
  if (!c->ssl) die("SSL_new");
  SSL_set_bio(c->ssl, bio, bio);
  SSL_set_options(c->ssl, SSL_OP_NO_QUERY_MTU);
  SSL_set_mtu(c->ssl, size > 1100 ? (long)size + 100 : 1228);
  SSL_set_connect_state(c->ssl);
  if (c->session) SSL_set_session(c->ssl, c->session);
  c->open = false;
  c->flights = 0;
  c->under_way = 0;
  c->began = now();
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) != 0) die("epoll");
  batch_begin();
  SSL_do_handshake(c->ssl);
}

static void start_anew(client *c) {
  SSL_shutdown(c->ssl);
  if (what == RESUME) {
    SSL_SESSION_free(c->session);
    c->session = SSL_get1_session(c->ssl);
  }
  SSL_free(c->ssl);
  close(c->fd);
  start(c);
}

/* Something has come for a client whose handshake goes on. */
static void shake(client *c) {
  if (what == HALF && c->flights++ > 0) { /* behind the HelloVerifyRequest: the flight that it lets lie */
    c->open = true;
    opened++;
    epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
    return;
  }
  int result = SSL_do_handshake(c->ssl);
  if (result != 1) {
    int error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return;
    failures++;
    start_anew(c);
    return;
  }
  handshakes++;
  if (connects_again()) {
    start_anew(c);
    return;
  }
  c->open = true;
  opened++;
}

/* ── messages ── */

static uint64_t touched(const client *c) { return c->sent_at > c->heard_at ? c->sent_at : c->heard_at; }

/*
 * No two messages are the same, which a server that keeps one copy of equal strings would have for nothing. The last bytes differ: of
 * a long string LuaJIT's hash looks at a few bytes only, and messages of which those are the same would be one dear exception.
 */
static void number_message(void) {
  uint32_t last = (uint32_t)sent;
  if (size >= NUMBER_AT + sizeof last) memcpy(message + size - sizeof last, &last, sizeof last);
}

static bool send_one(client *c) {
  number_message();
  ERR_clear_error();
  if (SSL_write(c->ssl, message, (int)size) <= 0) {
    failures++;
    return false;
  }
  c->under_way++;
  sent++;
  c->sent_at = now();
  return true;
}

/* Sends what the mode wants to be under way. */
static void fill(client *c) {
  if (what != ECHO && what != PUSH && what != PULL && what != TRICKLE) return;
  if (what == TRICKLE && now() < touched(c) + MILLISECOND) return;
  int limit = what == PULL || what == TRICKLE ? 1 : window;
  while (c->under_way < limit && send_one(c)) {
  }
  batch_flush(c->fd);
}

static void roam(uint64_t count) {
  for (; what == ROAM && count > 0; count--) {
    client *c = &all[turn++ % started];
    send_one(c);
    batch_flush(c->fd);
  }
}

static void note_message(client *c) {
  c->heard_at = now();
  received++;
  if (what == PULL) {
    if (++c->under_way > window) c->under_way = 0; /* the last one of the answer */
  } else if (what == PUSH) {
    c->under_way -= ACKNOWLEDGED;
  } else {
    c->under_way--;
  }
  if (measuring && what == TRICKLE && latency_count < LATENCIES_MAX)
    latencies[latency_count++] = (uint32_t)(c->heard_at - c->sent_at);
}

static void hear(client *c) {
  char data[MESSAGE_MAX];
  uint64_t before = received;
  while (SSL_read(c->ssl, data, sizeof data) > 0) note_message(c);
  if (!measuring) return;
  fill(c);
  roam(received - before);
}

/* ── time ── */

/*
 * A client that nothing has come for is out of step: what was under way is lost. A handshake that lasts this long will last for
 * ever: on a machine that is too busy, the server has taken the second copy of a hello for a new client.
 */
static void revive(client *c) {
  uint64_t time = now();
  if (!c->open && time > c->began + 5000 * MILLISECOND) {
    failures++;
    start_anew(c);
  } else if (!c->open) {
    DTLSv1_handle_timeout(c->ssl);
  } else if (c->under_way != 0 && time > touched(c) + 200 * MILLISECOND) {
    uint64_t missing = c->under_way > 0 ? (uint64_t)c->under_way : 0;
    lost += missing;
    c->under_way = 0;
    if (!measuring) return;
    fill(c);
    roam(missing);
  }
}

/* Until that time, or until so many clients are open. */
static void run(uint64_t until, uint64_t wanted) {
  struct epoll_event events[256];
  uint64_t revived = now();
  while (now() < until && opened < wanted) {
    int count = epoll_wait(epoll, events, 256, what == TRICKLE ? 1 : 10);
    for (int i = 0; i < count; i++) {
      client *c = events[i].data.ptr;
      batch_begin();
      ERR_clear_error();
      if (!c->open) shake(c);
      if (c->open && what != HALF) hear(c);
    }
    for (int i = 0; measuring && what == TRICKLE && i < started; i++) fill(&all[i]);
    if (now() < revived + 20 * MILLISECOND) continue;
    for (int i = 0; i < started; i++) revive(&all[i]);
    revived = now();
  }
}

/* ── commands ── */

static void grow(int wanted) {
  uint64_t limit = now() + 120000 * MILLISECOND;
  for (clients = wanted; started < clients;) {
    start(&all[started++]);
    if (started > CONNECTING_MAX && !connects_again()) run(limit, (uint64_t)(started - CONNECTING_MAX));
  }
  if (connects_again())
    run(now() + 300 * MILLISECOND, UINT64_MAX);
  else
    run(limit, (uint64_t)clients);
  printf("ready clients=%llu\n", (unsigned long long)opened);
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static void report(uint64_t began) {
  uint64_t heard = 0;
  for (int i = 0; i < started; i++) heard += all[i].heard_at >= began;
  printf("seconds=%.3f received=%llu sent=%llu lost=%llu heard=%llu handshakes=%llu failures=%llu",
         (double)(now() - began) / 1e9, (unsigned long long)received, (unsigned long long)sent,
         (unsigned long long)lost, (unsigned long long)heard, (unsigned long long)handshakes,
         (unsigned long long)failures);
  if (latency_count > 0) {
    qsort(latencies, latency_count, sizeof *latencies, by_value);
    size_t middle = latency_count / 2, late = latency_count * 99 / 100;
    printf(" p50=%.1f p99=%.1f", latencies[middle] / 1e3, latencies[late] / 1e3);
  }
  printf("\n");
}

static void measure(void) {
  received = sent = lost = handshakes = failures = 0;
  latency_count = 0;
  measuring = true;
  uint64_t began = now();
  for (int i = 0; i < started; i++) fill(&all[i]);
  roam((uint64_t)window);
  run(began + duration, UINT64_MAX);
  report(began);
  measuring = false;
  run(now() + 50 * MILLISECOND, UINT64_MAX); /* what was under way comes back, and counts no more */
}

static unsigned use_key(SSL *ssl, const char *hint, char *name, unsigned name_max, unsigned char *key,
                        unsigned key_max) {
  (void)ssl, (void)hint;
  if (name_max < 6 || key_max < 16) return 0;
  memcpy(name, "bench", 6);
  memset(key, 'k', 16);
  return 16;
}

static void make_context(void) {
  ctx = SSL_CTX_new(DTLS_client_method());
  if (!ctx) die("SSL_CTX_new");
  SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
  SSL_CTX_set_max_proto_version(ctx, DTLS1_2_VERSION);
  SSL_CTX_set_cipher_list(ctx, what == PSK ? "PSK-AES128-GCM-SHA256" : "ECDHE-ECDSA-AES128-GCM-SHA256");
  SSL_CTX_set1_groups_list(ctx, "X25519:P-256");
  if (what == PSK) SSL_CTX_set_psk_client_callback(ctx, use_key);
}

static long number(const char *text) { return strtol(text, NULL, 10); }

static mode find_mode(const char *name) {
  for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++)
    if (strcmp(name, modes[i]) == 0) return (mode)i;
  fprintf(stderr, "load: there is no mode %s\n", name);
  exit(2);
}

int main(int count, char **arguments) {
  if (count != 8) {
    fprintf(stderr, "usage: load HOST PORT MODE CLIENTS WINDOW SIZE SECONDS\n");
    return 2;
  }
  server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)number(arguments[2]))};
  inet_pton(AF_INET, arguments[1], &server.sin_addr);
  what = find_mode(arguments[3]);
  long first = number(arguments[4]);
  window = (int)number(arguments[5]);
  size = (size_t)number(arguments[6]);
  duration = (uint64_t)(strtod(arguments[7], NULL) * 1e9);
  if (first < 1 || first > CLIENTS_MAX || size < 1 || size > sizeof message) return 2;
  memset(message, 'x', sizeof message);
  if (what == PULL) snprintf(message, sizeof message, "%08d", window);
  make_context();
  epoll = epoll_create1(0);
  all = calloc(CLIENTS_MAX, sizeof *all);
  if (epoll < 0 || !all) die("start");
  setvbuf(stdout, NULL, _IOLBF, 0);
  grow((int)first);
  char line[64];
  while (fgets(line, sizeof line, stdin)) {
    long wanted = number(line);
    if (wanted > clients && wanted <= CLIENTS_MAX)
      grow((int)wanted);
    else
      measure();
  }
  return 0;
}
