/*
 * What the C programs of spec/interop/peers share: options, a socket that is connected to the other end, and the
 * protocol with the test: "listening VERSION" (servers), then "connected SUITE", then each message that was received as
 * a line, and "closed" when the other end has said so. What one read of standard input gives is sent as one message,
 * a line "empty" as a message without data, and "again" makes a client close the association and resume
 * its session in a new one; the end of standard input closes the association.
 */
#ifndef PEER_H
#define PEER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PEER_LONGEST = 16384, PEER_READABLE = -1, PEER_EMPTY = -2, PEER_AGAIN = -3 };

struct peer {
  bool server, psk;
  struct sockaddr_in address;
  const char *cert, *key, *ca;
  const char *identity, *secret;
};

static struct peer peer_options(int argc, char **argv) {
  if (argc < 7) exit(2);
  struct peer peer = { .server = strcmp(argv[1], "server") == 0, .psk = strcmp(argv[4], "psk") == 0 };
  peer.address.sin_family = AF_INET;
  peer.address.sin_port = htons((in_port_t)strtoul(argv[3], NULL, 10));
  inet_pton(AF_INET, argv[2], &peer.address.sin_addr);
  if (peer.psk) {
    peer.identity = argv[5];
    peer.secret = argv[6];
  } else if (argc == 8) {
    peer.cert = argv[5];
    peer.key = argv[6];
    peer.ca = argv[7];
  } else {
    exit(2);
  }
  return peer;
}

/* A server's is connected to whoever sends first. */
static int peer_socket(const struct peer *peer, const char *version) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in other = peer->address;
  socklen_t size = sizeof other;
  setvbuf(stdout, NULL, _IONBF, 0);
  if (peer->server) {
    char first[1];
    if (bind(fd, (const struct sockaddr *)&peer->address, sizeof peer->address) != 0) exit(3);
    printf("listening %s\n", version);
    if (recvfrom(fd, first, sizeof first, MSG_PEEK, (struct sockaddr *)&other, &size) < 0) exit(3);
  } else {
    printf("%s\n", version);
  }
  if (connect(fd, (struct sockaddr *)&other, size) != 0) exit(3);
  return fd;
}

static void peer_connected(const char *suite) {
  printf("connected %s\n", suite);
}

static void peer_received(const unsigned char *data, size_t length) {
  printf("%.*s\n", (int)length, (const char *)data);
}

_Noreturn static void peer_closed(void) {
  printf("closed\n");
  exit(0);
}

/* Waits: PEER_READABLE when the socket has a datagram, PEER_EMPTY, PEER_AGAIN, or the length of what is to be sent, 0 at the end. */
static ssize_t peer_wait(int fd, unsigned char *line) {
  struct pollfd wait[] = { { .fd = fd, .events = POLLIN }, { .fd = STDIN_FILENO, .events = POLLIN } };
  if (poll(wait, 2, -1) < 0) exit(3);
  if (wait[0].revents) return PEER_READABLE;
  ssize_t length = read(STDIN_FILENO, line, PEER_LONGEST);
  if (length == 6 && memcmp(line, "empty\n", 6) == 0) return PEER_EMPTY;
  if (length == 6 && memcmp(line, "again\n", 6) == 0) return PEER_AGAIN;
  return length;
}

#endif
