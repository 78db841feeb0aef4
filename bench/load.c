/*
 * The load of the benchmarks: DTLS 1.2 clients on connected sockets, in one process with one event loop. So that it is faster
 * than what it measures, the datagrams of a client come by recvmmsg, and leave together by UDP GSO where they are equally long.
 *
 *   load HOST PORT MODE CLIENTS WINDOW SIZE SECONDS
 *
 * MODE  echo       each client keeps WINDOW messages of SIZE bytes under way; the server sends each back
 *       push       each client sends as fast as its socket takes it; the server takes and counts, and answers every 64th
 *       pull       each client sends one message; the server answers with WINDOW messages, over and over
 *       handshake  each client connects, closes, and connects again
 *       resume     the same, with the session of the one before
 *       idle       the clients connect, and then stay open without a word
 * Prints one line: what was counted in SECONDS after all clients were open, as key=value.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/udp.h>
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

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { MESSAGE_MAX = 16384, DATAGRAM_MAX = 2048, BATCH = 32, OUT_MAX = 60000, ROOM = 1 << 20 };
typedef enum { ECHO, PUSH, PULL, HANDSHAKE, RESUME, IDLE } mode;
static const char *const modes[] = {"echo", "push", "pull", "handshake", "resume", "idle"};

typedef struct {
  int fd;
  SSL *ssl;
  SSL_SESSION *session;
  int open;
  int64_t under_way;
  uint64_t sent_at; /* ns: of the message that is under way alone */
  uint64_t touched; /* ns: when something came or went last */
} client;

/* What one client has received and not read yet; only one client reads at a time. */
static struct {
  struct mmsghdr messages[BATCH];
  struct iovec vectors[BATCH];
  unsigned char bytes[BATCH][DATAGRAM_MAX];
  int count, next;
} in;

/* What one client has written, and the length of each datagram. */
static struct {
  unsigned char bytes[OUT_MAX];
  size_t used, segment;
  int count;
} out;

static SSL_CTX *ctx;
static struct sockaddr_in server;
static mode what;
static int clients, started, window, epoll;
static size_t size;
static char message[MESSAGE_MAX];
static uint64_t opened, received, sent, lost, handshakes, failures;
static int measuring;
static uint32_t *latencies; /* ns */
static size_t latency_count, latency_room = 1 << 22;

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

static void flush(int fd) {
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(uint16_t))] = {0};
  struct iovec vector = {out.bytes, out.used};
  struct msghdr one = {.msg_iov = &vector, .msg_iovlen = 1};
  uint16_t segment = (uint16_t)out.segment;
  if (out.count > 1) {
    one.msg_control = control;
    one.msg_controllen = sizeof control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&one);
    c->cmsg_level = IPPROTO_UDP;
    c->cmsg_type = UDP_SEGMENT;
    c->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(c), &segment, sizeof segment);
  }
  if (out.count > 0 && sendmsg(fd, &one, 0) < 0) failures++;
  out.used = 0;
  out.count = 0;
}

static int bio_write(BIO *bio, const char *data, int length) {
  client *c = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (out.count > 0 && ((size_t)length != out.segment || out.count == 64 || out.used + (size_t)length > OUT_MAX))
    flush(c->fd);
  out.segment = (size_t)length;
  memcpy(out.bytes + out.used, data, (size_t)length);
  out.used += (size_t)length;
  out.count++;
  if (!c->open) flush(c->fd);
  return length;
}

static int bio_read(BIO *bio, char *data, int room) {
  client *c = BIO_get_data(bio);
  BIO_clear_retry_flags(bio);
  if (in.next == in.count) {
    in.next = 0;
    in.count = recvmmsg(c->fd, in.messages, BATCH, MSG_DONTWAIT, NULL);
    if (in.count <= 0) {
      in.count = 0;
      BIO_set_retry_read(bio);
      return -1;
    }
  }
  int length = (int)in.messages[in.next].msg_len;
  if (length > room) length = room;
  memcpy(data, in.bytes[in.next++], (size_t)length);
  return length;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer) {
  (void)bio, (void)number, (void)pointer;
  return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DGRAM_SET_NEXT_TIMEOUT;
}

static BIO_METHOD *make_method(void) {
  BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "load");
  BIO_meth_set_write(method, bio_write);
  BIO_meth_set_read(method, bio_read);
  BIO_meth_set_ctrl(method, bio_ctrl);
  for (int i = 0; i < BATCH; i++) {
    in.vectors[i] = (struct iovec){in.bytes[i], DATAGRAM_MAX};
    in.messages[i].msg_hdr = (struct msghdr){.msg_iov = &in.vectors[i], .msg_iovlen = 1};
  }
  return method;
}

static void start(client *c) {
  int room = ROOM;
  c->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&server, sizeof server) != 0) die("socket");
  setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  c->ssl = SSL_new(ctx);
  static BIO_METHOD *method;
  if (!method) method = make_method();
  BIO *bio = BIO_new(method);
  BIO_set_data(bio, c);
  BIO_set_init(bio, 1);
  SSL_set_bio(c->ssl, bio, bio);
  SSL_set_options(c->ssl, SSL_OP_NO_QUERY_MTU);
  SSL_set_mtu(c->ssl, size > 1100 ? (long)size + 100 : 1228);
  SSL_set_connect_state(c->ssl);
  if (c->session) SSL_set_session(c->ssl, c->session);
  c->open = 0;
  c->under_way = 0;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) != 0) die("epoll");
}

static void stop(client *c) {
  SSL_shutdown(c->ssl);
  if (what == RESUME) {
    SSL_SESSION_free(c->session);
    c->session = SSL_get1_session(c->ssl);
  }
  SSL_free(c->ssl);
  close(c->fd);
}

static void send_one(client *c) {
  ERR_clear_error();
  if (SSL_write(c->ssl, message, (int)size) <= 0) {
    failures++;
    return;
  }
  c->under_way++;
  sent++;
  c->touched = c->sent_at = now();
}

static void fill(client *c) {
  int limit = what == PULL ? 1 : window;
  if (what == IDLE || what == HANDSHAKE || what == RESUME) return;
  while (c->under_way < limit) {
    uint64_t before = failures;
    send_one(c);
    if (failures > before) return;
  }
}

static void shake(client *c) {
  ERR_clear_error();
  int result = SSL_do_handshake(c->ssl);
  if (result != 1) {
    int error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return;
    failures++;
    stop(c);
    start(c);
    SSL_do_handshake(c->ssl);
    return;
  }
  handshakes++;
  if (what == HANDSHAKE || what == RESUME) {
    stop(c);
    start(c);
    SSL_do_handshake(c->ssl);
    return;
  }
  c->open = 1;
  opened++;
}

static void note_latency(client *c) {
  if (measuring && window == 1 && latency_count < latency_room)
    latencies[latency_count++] = (uint32_t)(now() - c->sent_at);
}

static void hear(client *c) {
  char data[MESSAGE_MAX];
  ERR_clear_error();
  while (c->open && SSL_read(c->ssl, data, sizeof data) > 0) {
    received++;
    c->touched = now();
    if (what == PULL) {
      if (++c->under_way > window) c->under_way = 0; /* the last one of the answer */
    } else if (what == PUSH) {
      c->under_way -= 64;
    } else {
      c->under_way--;
      note_latency(c);
    }
  }
  in.count = in.next = 0;
  if (measuring || what == ECHO) fill(c);
  flush(c->fd);
}

/* A client that nothing has come for is out of step: what was under way is lost. */
static void revive(client *all, uint64_t patience) {
  uint64_t limit = now() - patience;
  for (int i = 0; i < started; i++) {
    client *c = &all[i];
    if (!c->open) {
      DTLSv1_handle_timeout(c->ssl);
    } else if (c->under_way != 0 && c->touched < limit) {
      lost += (uint64_t)(c->under_way > 0 ? c->under_way : 0);
      c->under_way = 0;
      fill(c);
      flush(c->fd);
    }
  }
}

static void run(client *all, uint64_t until, int wants_open) {
  struct epoll_event events[256];
  uint64_t revived = now();
  while (now() < until && !(wants_open && opened == (uint64_t)clients)) {
    int count = epoll_wait(epoll, events, 256, 10);
    for (int i = 0; i < count; i++) {
      client *c = events[i].data.ptr;
      if (!c->open) shake(c);
      if (c->open) hear(c);
    }
    if (now() - revived > 20000000u) {
      revive(all, 200000000u);
      revived = now();
    }
  }
}

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static void report(uint64_t began) {
  double seconds = (double)(now() - began) / 1e9;
  printf("clients=%llu seconds=%.3f received=%llu sent=%llu lost=%llu handshakes=%llu failures=%llu",
         (unsigned long long)opened, seconds, (unsigned long long)received, (unsigned long long)sent,
         (unsigned long long)lost, (unsigned long long)handshakes, (unsigned long long)failures);
  if (latency_count > 0) {
    qsort(latencies, latency_count, sizeof *latencies, by_value);
    size_t middle = latency_count / 2, late = latency_count * 99 / 100;
    printf(" p50=%.1f p99=%.1f", latencies[middle] / 1e3, latencies[late] / 1e3);
  }
  printf("\n");
  fflush(stdout);
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
  clients = (int)number(arguments[4]);
  window = (int)number(arguments[5]);
  size = (size_t)number(arguments[6]);
  double seconds = strtod(arguments[7], NULL);
  if (clients < 1 || size < 1 || size > sizeof message) return 2;
  memset(message, 'x', sizeof message);
  if (what == PULL) snprintf(message, sizeof message, "%08d", window);
  latencies = malloc(latency_room * sizeof *latencies);
  ctx = SSL_CTX_new(DTLS_client_method());
  epoll = epoll_create1(0);
  client *all = calloc((size_t)clients, sizeof *all);
  if (!ctx || epoll < 0 || !all || !latencies) die("start");
  SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
  SSL_CTX_set_max_proto_version(ctx, DTLS1_2_VERSION);
  SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES128-GCM-SHA256");
  SSL_CTX_set1_groups_list(ctx, "X25519:P-256");
  for (int i = 0; i < clients; i++) {
    start(&all[i]);
    started++;
    SSL_do_handshake(all[i].ssl);
    if (i % 16 == 15) run(all, now() + 1000000u, 0);
  }
  if (what == HANDSHAKE || what == RESUME)
    run(all, now() + 300000000u, 0);
  else
    run(all, now() + 10000000000u, 1);
  printf("ready clients=%llu\n", (unsigned long long)opened);
  fflush(stdout);
  if (getchar() == EOF) return 1; /* whoever measures says when */
  received = sent = lost = handshakes = failures = 0;
  measuring = 1;
  uint64_t began = now();
  for (int i = 0; i < clients; i++) {
    fill(&all[i]);
    flush(all[i].fd);
  }
  run(all, began + (uint64_t)(seconds * 1e9), 0);
  report(began);
  if (getchar() == EOF) return 1;
  return 0;
}
