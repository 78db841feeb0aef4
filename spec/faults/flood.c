/*
 * A flood of ClientHellos from any number of addresses of 127/8, in a process of its own: what a server sees of a crowd of
 * clients, or of a few that forge their addresses. It keeps no more under way than the server's receive buffer holds, so
 * that what was sent has really arrived, and it counts the answers.
 *
 *   flood <mode> <port> <count> <hosts> <sockets> <window> <quiet>
 *
 *   hello    hellos without a cookie, until there are count answers
 *   garbage  the same with a cookie that is none
 *   silent   count times a client proves its address, and says no more
 *
 * hosts addresses with sockets ports each take turns; who has its turn again starts over with another hello. window:
 * how many wait for an answer at most. quiet: ms without any, after which there will be none. At the end it prints a line
 * of name=value and stays, as peers do that have fallen silent, until its input ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 32, HELLO_MAX = 256, ANSWER_MAX = 2048, CONTROL = CMSG_SPACE(sizeof(struct in_pktinfo)) };
enum { RECORD = 13, HANDSHAKE = 12, VERIFY_REQUEST = 3, SERVER_HELLO = 2, COOKIE_AT = RECORD + HANDSHAKE + 3 };

typedef struct {
  uint32_t round; /* of this client: its hellos differ */
  bool greeted;   /* a flight has come in this round */
} client;

static struct {
  char mode; /* the first letter of its name */
  uint16_t port;
  unsigned long count, hosts, sockets, window;
  int quiet;
  int *fd;
  client *clients; /* by socket, then host */
  uint64_t sent, sent_bytes, answers, answer_bytes, larger, flights, cookies, lost, strange;
  unsigned long under_way;
} flood;

/* 127.0/16 is left to those who are no part of the flood. */
enum { FIRST_ADDRESS = 0x7f010000 };

/* ── the hello ── */

static uint8_t *number(uint8_t *p, uint32_t value, int bytes) {
  for (int i = bytes - 1; i >= 0; i--) *p++ = (uint8_t)(value >> (8 * i));
  return p;
}

static size_t build(uint8_t *out, unsigned long who, uint32_t round, const uint8_t *cookie, size_t cookie_size) {
  static const uint8_t tail[] = {0, 6,  0xc0, 0x2b, 0xcc, 0xa9, 0, 0xff, 1, 0,         /* suites, no compression */
                                 0, 32, 0,    10,   0,    6,    0, 4,    0, 29, 0, 23, /* groups */
                                 0, 11, 0,    2,    1,    0,    0, 13,   0, 8,  0, 6,
                                 4, 3,  8,    4,    4,    1, /* points, signatures */
                                 0, 23, 0,    0};            /* extended master secret */
  bool second = cookie_size > 0 && flood.mode != 'g';
  size_t body = 2 + 32 + 1 + 1 + cookie_size + sizeof tail;
  uint8_t *p = out;
  *p++ = 22;
  p = number(p, 0xfeff, 2);
  p = number(p, 0, 2);
  p = number(number(p, 0, 2), second, 4);
  p = number(p, (uint32_t)(HANDSHAKE + body), 2);
  *p++ = 1;
  p = number(p, (uint32_t)body, 3);
  p = number(p, second, 2);
  p = number(p, 0, 3);
  p = number(p, (uint32_t)body, 3);
  p = number(p, 0xfefd, 2);
  memset(p, 'r', 32);
  number(number(p, (uint32_t)who, 4), round, 4);
  p += 32;
  *p++ = 0;
  *p++ = (uint8_t)cookie_size;
  if (cookie_size) memcpy(p, cookie, cookie_size);
  p += cookie_size;
  memcpy(p, tail, sizeof tail);
  return (size_t)(p - out) + sizeof tail;
}

/* ── sending ── */

static struct {
  int fd;
  unsigned count;
  struct mmsghdr messages[BATCH];
  struct iovec vectors[BATCH];
  _Alignas(struct cmsghdr) uint8_t control[BATCH][CONTROL];
  uint8_t bytes[BATCH][HELLO_MAX];
} out;

static struct sockaddr_in server;

static void flush(void) {
  for (unsigned done = 0; done < out.count;) {
    int n = sendmmsg(out.fd, out.messages + done, out.count - done, 0);
    if (n < 0 && errno != EINTR && errno != EAGAIN && errno != ENOBUFS && errno != ECONNREFUSED) {
      perror("flood: sendmmsg");
      exit(1);
    }
    if (n > 0) done += (unsigned)n;
  }
  out.count = 0;
}

static void send_hello(unsigned long socket_index, unsigned long host, const uint8_t *cookie, size_t cookie_size) {
  unsigned long who = socket_index * flood.hosts + host;
  if (out.count == BATCH || (out.count && out.fd != flood.fd[socket_index])) flush();
  out.fd = flood.fd[socket_index];
  unsigned i = out.count++;
  size_t size = build(out.bytes[i], who, flood.clients[who].round, cookie, cookie_size);
  out.vectors[i] = (struct iovec){out.bytes[i], size};
  struct msghdr *message = &out.messages[i].msg_hdr;
  *message = (struct msghdr){.msg_name = &server,
                             .msg_namelen = sizeof server,
                             .msg_iov = &out.vectors[i],
                             .msg_iovlen = 1,
                             .msg_control = out.control[i],
                             .msg_controllen = CONTROL};
  struct cmsghdr *c = CMSG_FIRSTHDR(message);
  struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(FIRST_ADDRESS + (uint32_t)host)};
  c->cmsg_level = IPPROTO_IP;
  c->cmsg_type = IP_PKTINFO;
  c->cmsg_len = CMSG_LEN(sizeof info);
  memcpy(CMSG_DATA(c), &info, sizeof info);
  flood.sent++;
  flood.sent_bytes += size;
  flood.under_way++;
}

/* ── answers ── */

static void acknowledged(void) {
  if (flood.under_way > 0) flood.under_way--;
}

static void answer(unsigned long socket_index, unsigned long host, const uint8_t *data, size_t size) {
  client *c = &flood.clients[socket_index * flood.hosts + host];
  if (size < RECORD + HANDSHAKE || data[0] != 22) {
    flood.strange++;
    return;
  }
  if (data[RECORD] == VERIFY_REQUEST && size >= COOKIE_AT && size == (size_t)COOKIE_AT + data[COOKIE_AT - 1]) {
    uint8_t hello[HELLO_MAX];
    bool with_cookie = flood.mode == 'g';
    flood.answers++;
    flood.answer_bytes += size;
    if (size > build(hello, 0, 0, data + COOKIE_AT, with_cookie ? size - COOKIE_AT : 0)) flood.larger++;
    acknowledged();
    if (flood.mode != 's') return;
    send_hello(socket_index, host, data + COOKIE_AT, size - COOKIE_AT);
    flood.cookies++;
  } else if (data[RECORD] == SERVER_HELLO) {
    if (!c->greeted) {
      flood.flights++;
      acknowledged();
    }
    c->greeted = true;
  }
}

static bool host_of(struct msghdr *message, unsigned long *host) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_PKTINFO) continue;
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(c), sizeof info);
    *host = ntohl(info.ipi_addr.s_addr) - FIRST_ADDRESS;
    return *host < flood.hosts;
  }
  return false;
}

static void receive(unsigned long socket_index) {
  static uint8_t bytes[BATCH][ANSWER_MAX];
  static _Alignas(struct cmsghdr) uint8_t control[BATCH][CONTROL];
  struct sockaddr_in senders[BATCH] = {0};
  struct mmsghdr messages[BATCH];
  struct iovec vectors[BATCH];
  int n;
  do {
    for (unsigned i = 0; i < BATCH; i++) {
      vectors[i] = (struct iovec){bytes[i], ANSWER_MAX};
      messages[i].msg_hdr = (struct msghdr){.msg_name = &senders[i],
                                            .msg_namelen = sizeof senders[i],
                                            .msg_iov = &vectors[i],
                                            .msg_iovlen = 1,
                                            .msg_control = control[i],
                                            .msg_controllen = CONTROL};
    }
    n = recvmmsg(flood.fd[socket_index], messages, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < n; i++) {
      unsigned long host;
      if (senders[i].sin_port != server.sin_port)
        continue; /* somebody else on this machine thinks that the port is his */
      if (host_of(&messages[i].msg_hdr, &host))
        answer(socket_index, host, bytes[i], messages[i].msg_len);
      else
        flood.strange++;
    }
  } while (n == BATCH);
}

/* ── the flood ── */

static void run(void) {
  static const uint8_t garbage[32] = "this is not the server's cookie";
  bool endless = flood.mode != 's';
  struct pollfd *polls = calloc(flood.sockets, sizeof *polls);
  if (!polls) abort();
  for (unsigned long i = 0; i < flood.sockets; i++) polls[i] = (struct pollfd){.fd = flood.fd[i], .events = POLLIN};
  for (unsigned long turn = 0; endless ? flood.answers < flood.count : turn < flood.count || flood.under_way > 0;) {
    for (; flood.under_way < flood.window && (endless || turn < flood.count); turn++) {
      unsigned long host = turn % flood.hosts, socket_index = turn / flood.hosts % flood.sockets;
      client *c = &flood.clients[socket_index * flood.hosts + host];
      c->round++;
      c->greeted = false;
      send_hello(socket_index, host, garbage, flood.mode == 'g' ? sizeof garbage : 0);
    }
    flush();
    int ready = poll(polls, flood.sockets, flood.quiet);
    if (ready == 0) {
      flood.lost += flood.under_way;
      flood.under_way = 0;
    }
    for (unsigned long i = 0; i < flood.sockets && ready > 0; i++)
      if (polls[i].revents) receive(i);
    flush();
  }
  free(polls);
}

static int open_socket(void) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1, size = 4 << 20;
  struct sockaddr_in any = {.sin_family = AF_INET};
  if (fd < 0 || bind(fd, (struct sockaddr *)&any, sizeof any) != 0 ||
      setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) != 0) {
    perror("flood: socket");
    exit(1);
  }
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  return fd;
}

int main(int argc, char **argv) {
  if (argc != 8) return 2;
  flood.mode = argv[1][0];
  flood.port = (uint16_t)strtoul(argv[2], NULL, 10);
  flood.count = strtoul(argv[3], NULL, 10);
  flood.hosts = strtoul(argv[4], NULL, 10);
  flood.sockets = strtoul(argv[5], NULL, 10);
  flood.window = strtoul(argv[6], NULL, 10);
  flood.quiet = (int)strtol(argv[7], NULL, 10);
  server = (struct sockaddr_in){
      .sin_family = AF_INET, .sin_port = htons(flood.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  flood.fd = calloc(flood.sockets, sizeof *flood.fd);
  flood.clients = calloc(flood.sockets * flood.hosts, sizeof *flood.clients);
  if (!flood.fd || !flood.clients) abort();
  for (unsigned long i = 0; i < flood.sockets; i++) flood.fd[i] = open_socket();
  run();
  printf("done sent=%llu sentBytes=%llu answers=%llu answerBytes=%llu larger=%llu cookies=%llu flights=%llu lost=%llu "
         "strange=%llu\n",
         (unsigned long long)flood.sent, (unsigned long long)flood.sent_bytes, (unsigned long long)flood.answers,
         (unsigned long long)flood.answer_bytes, (unsigned long long)flood.larger, (unsigned long long)flood.cookies,
         (unsigned long long)flood.flights, (unsigned long long)flood.lost, (unsigned long long)flood.strange);
  fflush(stdout);
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  return 0;
}
