/* Control messages (cmsg(3)) of a datagram: the local address that it was sent to or leaves from, and how the kernel cuts it. */
#ifndef DTLS_NET_CONTROL_H
#define DTLS_NET_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/address.h"

/* Room for those of a datagram that comes in. */
enum { DTLS_CONTROL_IN_MAX = CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(3 * sizeof(struct in_addr)) };
/* Room for those of one that goes out. */
enum { DTLS_CONTROL_MAX = CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t)) };

bool dtls_udp_splits(int fd); /* whether the kernel can cut what is sent into datagrams (UDP_SEGMENT) */

/* Each datagram is to come with the address that it was sent to. False: errno says why not. */
bool dtls_control_ask(int fd, int family);
/* That address; bound is the socket's own, which stays where a datagram brings none. */
void dtls_control_local(struct msghdr *message, const dtls_address *bound, dtls_address *out);
/* segment: the kernel cuts the message into datagrams of so many bytes; 0: it is one. */
void dtls_control_fill(struct msghdr *message, uint8_t control[DTLS_CONTROL_MAX], const dtls_address *local,
                       size_t segment);

#endif
