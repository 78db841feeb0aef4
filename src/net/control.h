/* Control messages (cmsg(3)) of datagrams: the local address that they were sent to or leave from, and where a message is cut. */
#ifndef DTLS_NET_CONTROL_H
#define DTLS_NET_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/address.h"

/* Room for those that come in. */
enum {
  DTLS_CONTROL_IN_MAX =
      CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(3 * sizeof(struct in_addr)) + CMSG_SPACE(sizeof(int))
};
/* Room for those that go out. */
enum { DTLS_CONTROL_MAX = CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t)) };

bool dtls_udp_splits(int fd); /* whether the kernel can cut what is sent into datagrams (UDP_SEGMENT) */

/*
 * From now on datagrams that have come together from one sender may be taken as one message (UDP_GRO), if the kernel can do that.
 * Whoever reads the socket has to cut it: the socket is one that nobody else will ever read.
 */
void dtls_udp_coalesce(int fd);

/* Each datagram is to come with the address that it was sent to. False: errno says why not. */
bool dtls_control_ask(int fd, int family);
/*
 * Of a message that has come in. local: that address; it holds the socket's own, which stays where a message brings none. Returns how
 * long its datagrams are, all but the last, which may be shorter; 0: it is one datagram.
 */
size_t dtls_control_read(struct msghdr *message, dtls_address *local);
/* segment: the kernel cuts the message into datagrams of so many bytes; 0: it is one. */
void dtls_control_fill(struct msghdr *message, uint8_t control[DTLS_CONTROL_MAX], const dtls_address *local,
                       size_t segment);

#endif
