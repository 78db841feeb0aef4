/*
 * ClientHellos without a cookie, as a flood or a crowd of new clients sends them: each is a new one from one of a few sockets,
 * and the next leaves when the HelloVerifyRequest has come.
 *
 *   hello HOST PORT SOCKETS WINDOW SECONDS
 *
 * WINDOW hellos of each socket are under way. Prints "ready", and to each line on its standard input how many hellos were
 * answered in SECONDS and the CPU time that they took here, as key=value.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/ssl.h>

enum { HELLO_MAX = 512, RANDOM_AT = 13 + 12 + 2, SOCKETS_MAX = 64, WINDOW_MAX = 64 };

static struct {
  unsigned char bytes[HELLO_MAX];
  int size;
  uint64_t number; /* which is in its random, so that none is a copy */
} hello;

static uint64_t sent, answered;

static void die(const char *text) {
  perror(text);
  exit(1);
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Seconds of CPU time. */
static double used(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* The first flight of an OpenSSL client. */
static void make_hello(void) {
  SSL_CTX *ctx = SSL_CTX_new(DTLS_client_method());
  SSL *ssl = ctx ? SSL_new(ctx) : NULL;
  BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
  if (!ssl || !in || !out) die("OpenSSL");
  SSL_set_bio(ssl, in, out);
  SSL_set_options(ssl, SSL_OP_NO_QUERY_MTU);
  SSL_set_mtu(ssl, 1228);
  SSL_connect(ssl);
  hello.size = BIO_read(out, hello.bytes, sizeof hello.bytes);
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  if (hello.size <= RANDOM_AT + 32) die("no hello");
}

static void send_hellos(int fd, int count) {
  for (; count > 0; count--) {
    hello.number++;
    memcpy(hello.bytes + RANDOM_AT, &hello.number, sizeof hello.number);
    if (send(fd, hello.bytes, (size_t)hello.size, 0) == hello.size) sent++;
  }
}

static int take_answers(int fd) {
  unsigned char bytes[HELLO_MAX];
  int count = 0;
  while (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0) count++;
  answered += (uint64_t)count;
  return count;
}

static void run(struct pollfd *all, int sockets, int window, uint64_t until) {
  for (int i = 0; i < sockets; i++) send_hellos(all[i].fd, window);
  while (now() < until) {
    bool silent = poll(all, (nfds_t)sockets, 100) == 0; /* what was under way is lost */
    for (int i = 0; i < sockets; i++) send_hellos(all[i].fd, silent ? window : take_answers(all[i].fd));
  }
}

int main(int count, char **arguments) {
  struct sockaddr_in server = {.sin_family = AF_INET};
  struct pollfd all[SOCKETS_MAX];
  char line[64];
  if (count != 6) return 2;
  server.sin_port = htons((uint16_t)strtol(arguments[2], NULL, 10));
  int sockets = (int)strtol(arguments[3], NULL, 10), window = (int)strtol(arguments[4], NULL, 10);
  double seconds = strtod(arguments[5], NULL);
  if (inet_pton(AF_INET, arguments[1], &server.sin_addr) != 1 || sockets < 1 || sockets > SOCKETS_MAX || window < 1 ||
      window > WINDOW_MAX)
    return 2;
  make_hello();
  for (int i = 0; i < sockets; i++) {
    all[i] = (struct pollfd){.fd = socket(AF_INET, SOCK_DGRAM, 0), .events = POLLIN};
    if (all[i].fd < 0 || connect(all[i].fd, (struct sockaddr *)&server, sizeof server) != 0) die("socket");
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    uint64_t began = now();
    double used_before = used();
    sent = answered = 0;
    run(all, sockets, window, began + (uint64_t)(seconds * 1e9));
    printf("seconds=%.3f hellos=%llu sent=%llu sender=%.6f\n", (double)(now() - began) / 1e9,
           (unsigned long long)answered, (unsigned long long)sent, used() - used_before);
  }
  return 0;
}
