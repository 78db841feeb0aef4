/*
 * UDP sockets: their addresses and options, sockets for one peer, and one datagram out or in. Knows nothing of DTLS.
 */
#include "net/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/platform.h"

bool dtls_udp_local(int fd, dtls_address *out) {
  socklen_t size = sizeof *out;
  memset(out, 0, sizeof *out);
  return getsockname(fd, &out->sa, &size) == 0 && (out->sa.sa_family == AF_INET || out->sa.sa_family == AF_INET6);
}

bool dtls_udp_peer(int fd, dtls_address *out) {
  socklen_t size = sizeof *out;
  memset(out, 0, sizeof *out);
  return getpeername(fd, &out->sa, &size) == 0;
}

static bool set(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

/* With POLLERR alone libuv stops the poll with EBADF, and luv up to 1.44 prints that to stderr. What the owner of the socket has asked
   to be queued nobody here reads, and one such error would keep the event loop busy for good. */
void dtls_udp_announce_errors(int fd) {
#if DTLS_HAS_ERROR_EVENTS
  set(fd, IPPROTO_IP, IP_RECVERR, 0);
  set(fd, IPPROTO_IPV6, IPV6_RECVERR, 0); /* fails for an IPv4 socket */
  set(fd, SOL_SOCKET, SO_SELECT_ERR_QUEUE, 1);
#else
  (void)fd;
#endif
}

/* How many hops a datagram may take. An IPv6 socket may carry IPv4, too; not every kernel lets it say so. */
static bool set_ttl(int fd, int family, int ttl) {
  bool v4 = set(fd, IPPROTO_IP, IP_TTL, ttl);
  return family == AF_INET6 ? set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl) : v4;
}

static bool copy_ttl(int from, int to, int family) {
  int ttl;
  socklen_t size = sizeof ttl;
  bool known = family == AF_INET6 ? getsockopt(from, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &ttl, &size) == 0
                                  : getsockopt(from, IPPROTO_IP, IP_TTL, &ttl, &size) == 0;
  return known && set_ttl(to, family, ttl);
}

static bool set_buffers(int fd, dtls_buffers buffers) {
  return (buffers.receive == 0 || set(fd, SOL_SOCKET, SO_RCVBUF, buffers.receive)) &&
         (buffers.send == 0 || set(fd, SOL_SOCKET, SO_SNDBUF, buffers.send));
}

/*
 * SO_MEMINFO: what ss(8) shows of a socket. Its counter of drops is the one that SO_RXQ_OVFL would put into a control message of
 * each datagram; read when somebody asks it costs nothing per datagram, holds for sockets that libssl reads, and does not wait
 * for the next datagram.
 */
uint32_t dtls_udp_overflow(int fd, uint32_t *seen) {
#if DTLS_HAS_DROP_COUNT
  enum { DROPS = 8, COUNT = 9 }; /* of <linux/sock_diag.h>, which musl does not bring */
  uint32_t memory[COUNT], before = *seen;
  socklen_t size = sizeof memory;
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size) != 0 || size <= DROPS * sizeof *memory) return 0;
  *seen = memory[DROPS];
  return *seen - before; /* the kernel's counter has 32 bits and begins anew */
#else
  (void)fd;
  (void)seen;
  return 0;
#endif
}

bool dtls_udp_buffers(int fd, dtls_buffers *out) {
  socklen_t receive = sizeof out->receive, send = sizeof out->send;
  return getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &out->receive, &receive) == 0 &&
         getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &out->send, &send) == 0;
}

/* SO_REUSEPORT and not SO_REUSEADDR: the latter would let another user's process take the port. */
bool dtls_udp_share_port(int fd) {
#if DTLS_HAS_REUSEPORT
  return set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
#else
  (void)fd;
  errno = ENOPROTOOPT;
  return false;
#endif
}

bool dtls_udp_configure(int fd, dtls_socket_options options) {
  dtls_address bound;
  return (!options.reuse_port || dtls_udp_share_port(fd)) && set_buffers(fd, options.buffers) &&
         (options.ttl == 0 || (dtls_udp_local(fd, &bound) && set_ttl(fd, bound.sa.sa_family, options.ttl)));
}

/* A UDP socket that does not block and is not handed on by exec. */
static int new_socket(int family) {
#if DTLS_HAS_SOCKET_FLAGS
  int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
  int fd = socket(family, SOCK_DGRAM, 0);
  if (fd >= 0) (void)(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
#endif
  return dtls_descriptor_lift(fd);
}

int dtls_udp_peer_socket(int listening, const dtls_address *local, const dtls_address *peer, dtls_buffers buffers) {
  int fd = new_socket(local->sa.sa_family);
  if (fd < 0) return -1;
  bool ok = dtls_udp_share_port(fd);
  if (ok && local->sa.sa_family == AF_INET6)
    ok = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !IN6_IS_ADDR_V4MAPPED(&local->v6.sin6_addr));
  dtls_udp_coalesce(fd);
  ok = ok && set_buffers(fd, buffers) && copy_ttl(listening, fd, local->sa.sa_family) &&
       bind(fd, &local->sa, dtls_address_size(local)) == 0 && connect(fd, &peer->sa, dtls_address_size(peer)) == 0;
  if (!ok) {
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
  }
  return fd;
}

ssize_t dtls_udp_receive_message(int fd, struct msghdr *message) {
#if DTLS_HAS_WHOLE_SIZE
  return recvmsg(fd, message, MSG_DONTWAIT | MSG_TRUNC);
#else
  ssize_t size = recvmsg(fd, message, MSG_DONTWAIT);
  return size >= 0 && (message->msg_flags & MSG_TRUNC) ? size + 1 : size;
#endif
}

ssize_t dtls_udp_receive(int fd, void *data, size_t capacity, dtls_address *sender) {
#if DTLS_HAS_WHOLE_SIZE
  socklen_t size = sizeof *sender;
  return recvfrom(fd, data, capacity, MSG_DONTWAIT | MSG_TRUNC, &sender->sa, &size);
#else
  struct iovec vector = {data, capacity};
  struct msghdr message = {.msg_name = sender, .msg_namelen = sizeof *sender, .msg_iov = &vector, .msg_iovlen = 1};
  return dtls_udp_receive_message(fd, &message);
#endif
}

bool dtls_udp_has_datagram(int fd) {
  char none;
  return recv(fd, &none, 0, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

void dtls_udp_address(struct msghdr *message, uint8_t control[DTLS_CONTROL_MAX], const dtls_address *local,
                      const dtls_address *peer, size_t segment) {
  message->msg_name = (void *)(uintptr_t)peer;
  message->msg_namelen = peer ? dtls_address_size(peer) : 0;
  dtls_control_fill(message, control, local, segment);
}

/* Sends from a given local address, which the dgram BIO cannot: on a wildcard socket the kernel would choose. */
ssize_t dtls_udp_send(int fd, const dtls_address *local, const dtls_address *peer, const void *data, size_t size) {
  _Alignas(struct cmsghdr) uint8_t control[DTLS_CONTROL_MAX];
  struct iovec vector = {(void *)(uintptr_t)data, size};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  dtls_udp_address(&message, control, local, peer, 0);
  return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}
