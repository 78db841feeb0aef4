/*
 * Control messages of datagrams. IPv6 has the local address by RFC 3542; IPv4 has it in one of two ways, or not at all: then the
 * kernel chooses the address that an answer leaves from, which is the wrong one on a host with several, unless the socket is
 * bound to one of them.
 */
#include "net/control.h"

#include <netinet/udp.h>
#include <string.h>

#if DTLS_HAS_DSTADDR
typedef struct {
  struct in_addr ipi_spec_dst;
} v4_info;
enum { V4_ASK = IP_RECVDSTADDR, V4_IN = IP_RECVDSTADDR, V4_OUT = IP_SENDSRCADDR };
#else
typedef struct in_pktinfo v4_info;
enum { V4_ASK = IP_PKTINFO, V4_IN = IP_PKTINFO, V4_OUT = IP_PKTINFO };
#endif

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* the C library may be older than the kernel */
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static bool set(int fd, int level, int name, int value) {
  return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

bool dtls_udp_splits(int fd) { return DTLS_HAS_SEGMENTS && set(fd, IPPROTO_UDP, UDP_SEGMENT, 0); }

void dtls_udp_coalesce(int fd) {
  if (DTLS_HAS_COALESCING) (void)set(fd, IPPROTO_UDP, UDP_GRO, 1);
}

bool dtls_control_ask(int fd, int family) {
  if (!DTLS_HAS_LOCAL_ADDRESS) return true;
  return family == AF_INET6 ? set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) : set(fd, IPPROTO_IP, V4_ASK, 1);
}

static void read_v4(const struct cmsghdr *c, struct in_addr *out) {
  v4_info info;
  if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != V4_IN) return;
  memcpy(&info, CMSG_DATA(c), sizeof info);
  *out = info.ipi_spec_dst; /* ipi_addr would be the group for a multicast hello */
}

static void read_v6(const struct cmsghdr *c, struct sockaddr_in6 *out) {
  struct in6_pktinfo info;
  if (c->cmsg_level != IPPROTO_IPV6 || c->cmsg_type != IPV6_PKTINFO) return;
  memcpy(&info, CMSG_DATA(c), sizeof info);
  out->sin6_addr = info.ipi6_addr;
  out->sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? info.ipi6_ifindex : 0;
}

static void read_segment(const struct cmsghdr *c, size_t *out) {
  int size;
  if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO) return;
  memcpy(&size, CMSG_DATA(c), sizeof size);
  if (size > 0) *out = (size_t)size;
}

size_t dtls_control_read(struct msghdr *message, dtls_address *local) {
  size_t segment = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (DTLS_HAS_COALESCING) read_segment(c, &segment);
    if (DTLS_HAS_LOCAL_ADDRESS && local->sa.sa_family == AF_INET6)
      read_v6(c, &local->v6);
    else if (DTLS_HAS_LOCAL_ADDRESS)
      read_v4(c, &local->v4.sin_addr); /* the port is the socket's own */
  }
  return segment;
}

/* Adds a control message, for which there is room. */
static void add(struct msghdr *message, uint8_t *control, int level, int type, const void *data, size_t size) {
  struct cmsghdr *c = (struct cmsghdr *)(void *)(control + message->msg_controllen);
  c->cmsg_level = level;
  c->cmsg_type = type;
  c->cmsg_len = (socklen_t)CMSG_LEN(size); /* size_t or socklen_t */
  memcpy(CMSG_DATA(c), data, size);
  message->msg_control = control;
  message->msg_controllen += (socklen_t)CMSG_SPACE(size);
}

static void add_local(struct msghdr *message, uint8_t *control, const dtls_address *local) {
  if (local->sa.sa_family == AF_INET6) {
    struct in6_pktinfo info = {.ipi6_addr = local->v6.sin6_addr, .ipi6_ifindex = local->v6.sin6_scope_id};
    add(message, control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  } else {
    v4_info info = {.ipi_spec_dst = local->v4.sin_addr};
    add(message, control, IPPROTO_IP, V4_OUT, &info, sizeof info);
  }
}

void dtls_control_fill(struct msghdr *message, uint8_t control[DTLS_CONTROL_MAX], const dtls_address *local,
                       size_t segment) {
  uint16_t size = (uint16_t)segment;
  memset(control, 0, DTLS_CONTROL_MAX);
  message->msg_control = NULL; /* macOS and FreeBSD refuse one without anything in it */
  message->msg_controllen = 0;
  if (DTLS_HAS_LOCAL_ADDRESS && local) add_local(message, control, local);
  if (DTLS_HAS_SEGMENTS && segment > 0) add(message, control, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size);
}
