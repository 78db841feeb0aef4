/* UDP sockets: options, peer sockets, and one datagram out or in. */
#ifndef DTLS_NET_SOCKET_H
#define DTLS_NET_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/address.h"
#include "net/control.h"

/* Bytes, as SO_RCVBUF and SO_SNDBUF count them; 0: as the system makes them. */
typedef struct {
  int receive, send;
} dtls_buffers;

typedef struct {
  bool reuse_port; /* SO_REUSEPORT */
  int ttl;         /* hops; 0: the system's */
  dtls_buffers buffers;
} dtls_socket_options;

/* False: errno says why. Buffer sizes are wishes: the kernel caps them (net.core.rmem_max, wmem_max). */
bool dtls_udp_configure(int fd, dtls_socket_options options);
bool dtls_udp_buffers(int fd, dtls_buffers *out); /* what the kernel gave; false: it does not say */
/* How many datagrams the kernel has dropped at the socket since the count that seen has, which is brought up to date. */
uint32_t dtls_udp_overflow(int fd, uint32_t *seen);
/* a pending error (ICMP) then is an event for a poll on POLLPRI, and none is queued */
void dtls_udp_announce_errors(int fd);
bool dtls_udp_local(int fd, dtls_address *out);
bool dtls_udp_peer(int fd, dtls_address *out);
bool dtls_udp_share_port(int fd); /* SO_REUSEPORT; false: errno says why not */
/* A non-blocking socket bound to local and connected to peer, otherwise like the listening one; -1 and errno on failure. */
int dtls_udp_peer_socket(int listening, const dtls_address *local, const dtls_address *peer, dtls_buffers buffers);
/* Fills in where a message comes from and goes to, which stay the caller's as long as it is used; NULL: as the socket is bound and
   connected. segment: the kernel cuts it into datagrams of so many bytes (UDP_SEGMENT); 0: it is one. */
void dtls_udp_address(struct msghdr *message, uint8_t control[DTLS_CONTROL_MAX], const dtls_address *local,
                      const dtls_address *peer, size_t segment);
/* One datagram, as sendmsg(2), which never waits. */
ssize_t dtls_udp_send(int fd, const dtls_address *local, const dtls_address *peer, const void *data, size_t size);
/* recvfrom(2) and recvmsg(2), which never wait. The size of a datagram that has been cut is larger than its room: that of the
   whole datagram, where the kernel tells. */
ssize_t dtls_udp_receive_message(int fd, struct msghdr *message);
ssize_t dtls_udp_receive(int fd, void *data, size_t capacity, dtls_address *sender);
bool dtls_udp_has_datagram(int fd); /* false: errno says why not */

#endif
