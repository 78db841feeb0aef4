/*
 * UDP sockets: their addresses and options, sockets for one peer, and one datagram out or in. Knows nothing of DTLS.
 */
#include "net/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* Linux 4.18; the C library may be older */
#endif

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

/* The number must not be one of stdin, stdout and stderr, should they be closed: others write there. */
int dtls_udp_duplicate(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1); }

/* The same for a descriptor that is ours, and has such a number. */
static int lift(int fd) {
  int above = dtls_udp_duplicate(fd), saved = errno;
  close(fd);
  errno = saved;
  return above;
}

static bool set(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

/* With POLLERR alone libuv stops the poll with EBADF, and luv up to 1.44 prints that to stderr. What the owner of a socket
   has asked to be queued nobody here reads, and one such error would keep the event loop busy for good. */
void dtls_udp_announce_errors(int fd) {
  set(fd, IPPROTO_IP, IP_RECVERR, 0);
  set(fd, IPPROTO_IPV6, IPV6_RECVERR, 0); /* fails for an IPv4 socket */
#ifdef SO_SELECT_ERR_QUEUE
  set(fd, SOL_SOCKET, SO_SELECT_ERR_QUEUE, 1);
#else
  (void)fd;
#endif
}

/* How many hops a datagram may take. An IPv6 socket may carry IPv4, too. */
static bool set_ttl(int fd, int family, int ttl) {
  return set(fd, IPPROTO_IP, IP_TTL, ttl) && (family != AF_INET6 || set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, ttl));
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
 * SO_MEMINFO (Linux 4.12): what ss(8) shows of a socket. Its counter of drops is the one that SO_RXQ_OVFL would put into a
 * control message of each datagram; read when somebody asks it costs nothing per datagram, holds for sockets that libssl reads,
 * and does not wait for the next datagram. False: the kernel has no such option.
 */
static bool read_memory(int fd, uint32_t out[SK_MEMINFO_VARS]) {
  socklen_t size = SK_MEMINFO_VARS * sizeof *out;
  return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, out, &size) == 0 && size > SK_MEMINFO_DROPS * sizeof *out;
}

uint32_t dtls_udp_overflow(int fd, uint32_t *seen) {
  uint32_t memory[SK_MEMINFO_VARS], before = *seen;
  if (!read_memory(fd, memory)) return 0;
  *seen = memory[SK_MEMINFO_DROPS];
  return *seen - before; /* the kernel's counter has 32 bits and begins anew */
}

bool dtls_udp_buffers(int fd, dtls_buffers *out) {
  uint32_t memory[SK_MEMINFO_VARS];
  if (!read_memory(fd, memory)) return false;
  *out = (dtls_buffers){.receive = (int)memory[SK_MEMINFO_RCVBUF], .send = (int)memory[SK_MEMINFO_SNDBUF]};
  return true;
}

bool dtls_udp_configure(int fd, dtls_socket_options options) {
  dtls_address bound;
  return (!options.reuse_port || set(fd, SOL_SOCKET, SO_REUSEPORT, 1)) && set_buffers(fd, options.buffers) &&
         (options.ttl == 0 || (dtls_udp_local(fd, &bound) && set_ttl(fd, bound.sa.sa_family, options.ttl)));
}

int dtls_udp_peer_socket(int listening, const dtls_address *local, const dtls_address *peer, dtls_buffers buffers) {
  int fd = socket(local->sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0 && fd <= STDERR_FILENO) fd = lift(fd);
  if (fd < 0) return -1;
  /* SO_REUSEPORT and not SO_REUSEADDR: the latter would let another user's process take the port. */
  bool ok = set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (ok && local->sa.sa_family == AF_INET6)
    ok = set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !IN6_IS_ADDR_V4MAPPED(&local->v6.sin6_addr));
  dtls_udp_announce_errors(fd);
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

ssize_t dtls_udp_receive(int fd, void *data, size_t capacity, dtls_address *sender) {
  socklen_t size = sizeof *sender;
  return recvfrom(fd, data, capacity, MSG_DONTWAIT | MSG_TRUNC, &sender->sa, &size);
}

bool dtls_udp_splits(int fd) { return set(fd, IPPROTO_UDP, UDP_SEGMENT, 0); }

/* Adds a control message, for which there is room. */
static void add_control(struct msghdr *message, int level, int type, const void *data, size_t size) {
  struct cmsghdr *c = (struct cmsghdr *)(void *)((char *)message->msg_control + message->msg_controllen);
  c->cmsg_level = level;
  c->cmsg_type = type;
  c->cmsg_len = CMSG_LEN(size);
  memcpy(CMSG_DATA(c), data, size);
  message->msg_controllen += CMSG_SPACE(size);
}

void dtls_udp_address(struct msghdr *message, uint8_t control[DTLS_CONTROL_MAX], const dtls_address *local,
                      const dtls_address *peer, size_t segment) {
  memset(control, 0, DTLS_CONTROL_MAX);
  message->msg_name = (void *)(uintptr_t)peer;
  message->msg_namelen = dtls_address_size(peer);
  message->msg_control = control;
  message->msg_controllen = 0;
  if (local->sa.sa_family == AF_INET) {
    struct in_pktinfo info = {.ipi_spec_dst = local->v4.sin_addr};
    add_control(message, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  } else {
    struct in6_pktinfo info = {.ipi6_addr = local->v6.sin6_addr, .ipi6_ifindex = local->v6.sin6_scope_id};
    add_control(message, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  }
  if (segment > 0) {
    uint16_t size = (uint16_t)segment;
    add_control(message, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size);
  }
}

/* Sends from a given local address, which the dgram BIO cannot: on a wildcard socket the kernel would choose. */
ssize_t dtls_udp_send(int fd, const dtls_address *local, const dtls_address *peer, const void *data, size_t size) {
  _Alignas(struct cmsghdr) uint8_t control[DTLS_CONTROL_MAX];
  struct iovec vector = {(void *)(uintptr_t)data, size};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  dtls_udp_address(&message, control, local, peer, 0);
  return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}
