/*
 * Sockets and addresses: the descriptor inside a luv UDP handle, socket options, peer sockets, and datagrams in
 * batches together with the local address that they were sent to. Knows nothing of DTLS.
 */
#include "core.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <string.h>
#include <unistd.h>

/* ── addresses ── */

socklen_t dtls_address_size(const dtls_address *address) {
  return address->sa.sa_family == AF_INET6 ? sizeof address->v6 : sizeof address->v4;
}

bool dtls_address_equal(const dtls_address *a, const dtls_address *b) {
  if (a->sa.sa_family != b->sa.sa_family) return false;
  if (a->sa.sa_family == AF_INET)
    return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
  return a->v6.sin6_port == b->v6.sin6_port && a->v6.sin6_scope_id == b->v6.sin6_scope_id &&
         memcmp(&a->v6.sin6_addr, &b->v6.sin6_addr, sizeof a->v6.sin6_addr) == 0;
}

void dtls_address_bytes(const dtls_address *address, uint8_t out[DTLS_ADDRESS_BYTES]) {
  memset(out + 18, 0, 4);
  if (address->sa.sa_family == AF_INET) {
    memset(out, 0, 10);
    memset(out + 10, 0xff, 2);
    memcpy(out + 12, &address->v4.sin_addr, 4);
    memcpy(out + 16, &address->v4.sin_port, 2);
  } else {
    memcpy(out, &address->v6.sin6_addr, 16);
    memcpy(out + 16, &address->v6.sin6_port, 2);
    memcpy(out + 18, &address->v6.sin6_scope_id, 4);
  }
}

uint64_t dtls_address_hash(uint64_t seed, const dtls_address *local, const dtls_address *peer) {
  uint8_t bytes[2 * DTLS_ADDRESS_BYTES];
  uint64_t hash = seed;
  dtls_address_bytes(local, bytes);
  dtls_address_bytes(peer, bytes + DTLS_ADDRESS_BYTES);
  for (size_t i = 0; i < sizeof bytes; i += 4) {
    uint32_t word;
    memcpy(&word, bytes + i, sizeof word);
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  return hash;
}

void dtls_address_push(lua_State *L, const dtls_address *address) {
  bool v6 = address->sa.sa_family == AF_INET6;
  char ip[INET6_ADDRSTRLEN + 1 + IF_NAMESIZE] = "";
  inet_ntop(address->sa.sa_family, v6 ? (const void *)&address->v6.sin6_addr : &address->v4.sin_addr, ip, INET6_ADDRSTRLEN);
  if (v6 && address->v6.sin6_scope_id != 0) {
    size_t end = strlen(ip);
    ip[end] = '%';
    if (!if_indextoname(address->v6.sin6_scope_id, ip + end + 1)) ip[end] = '\0';
  }
  lua_createtable(L, 0, 3);
  lua_pushstring(L, ip);
  lua_setfield(L, -2, "ip");
  lua_pushinteger(L, ntohs(v6 ? address->v6.sin6_port : address->v4.sin_port));
  lua_setfield(L, -2, "port");
  lua_pushstring(L, v6 ? "inet6" : "inet");
  lua_setfield(L, -2, "family");
}

/* The address behind a zone's '%', or all of it. */
static bool parse_v6(const char *ip, struct sockaddr_in6 *out) {
  char text[INET6_ADDRSTRLEN];
  struct in_addr v4;
  size_t length = strcspn(ip, "%");
  if (length >= sizeof text) return false;
  memcpy(text, ip, length);
  text[length] = '\0';
  if (ip[length] == '%' && (out->sin6_scope_id = if_nametoindex(ip + length + 1)) == 0) return false;
  if (inet_pton(AF_INET6, text, &out->sin6_addr) == 1) return true;
  if (ip[length] == '%' || inet_pton(AF_INET, text, &v4) != 1) return false;
  memset(&out->sin6_addr.s6_addr[10], 0xff, 2);
  memcpy(&out->sin6_addr.s6_addr[12], &v4, sizeof v4);
  return true;
}

bool dtls_address_parse(const char *ip, unsigned port, int family, dtls_address *out) {
  memset(out, 0, sizeof *out);
  if (family == AF_INET) {
    out->v4.sin_family = AF_INET;
    out->v4.sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, ip, &out->v4.sin_addr) == 1;
  }
  out->v6.sin6_family = AF_INET6;
  out->v6.sin6_port = htons((uint16_t)port);
  return parse_v6(ip, &out->v6);
}

/* IPv4, mapped or not: the address. IPv6: its /64 on its link, because whoever has one address there has 2^64. */
void dtls_address_push_host(lua_State *L, const dtls_address *address) {
  uint8_t bytes[DTLS_ADDRESS_BYTES];
  dtls_address_bytes(address, bytes);
  if (address->sa.sa_family == AF_INET || IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr)) {
    lua_pushlstring(L, (const char *)bytes, 16);
  } else {
    memcpy(bytes + 8, &address->v6.sin6_scope_id, 4);
    lua_pushlstring(L, (const char *)bytes, 12);
  }
}

BIO_ADDR *dtls_address_to_bio(const dtls_address *address) {
  BIO_ADDR *out = BIO_ADDR_new();
  int ok = 0;
  if (out && address->sa.sa_family == AF_INET6)
    ok = BIO_ADDR_rawmake(out, AF_INET6, &address->v6.sin6_addr, sizeof address->v6.sin6_addr, address->v6.sin6_port);
  else if (out)
    ok = BIO_ADDR_rawmake(out, AF_INET, &address->v4.sin_addr, sizeof address->v4.sin_addr, address->v4.sin_port);
  if (!ok) {
    BIO_ADDR_free(out);
    return NULL;
  }
  return out;
}

/* ── descriptors of luv handles ── */

/* Calls handle:name() without letting an error through; leaves the result on the stack, or nil. */
static void call_method(lua_State *L, int index, const char *name) {
  lua_getfield(L, index, name);
  lua_pushvalue(L, index);
  if (lua_pcall(L, 1, 1, 0) != 0) {
    lua_pop(L, 1);
    lua_pushnil(L);
  }
}

int dtls_udp_fd(lua_State *L, int index) {
  luaL_checkany(L, index);
  lua_pushvalue(L, index);
  if (lua_istable(L, -1)) { /* luvit's dgram socket keeps its luv handle in _handle, until it is closed */
    lua_getfield(L, -1, "_handle");
    lua_getfield(L, -2, "recvStart");
    bool is_closed_dgram = lua_isnil(L, -2) && !lua_isnil(L, -1);
    lua_pop(L, 1);
    lua_replace(L, -2);
    if (is_closed_dgram) {
      lua_pop(L, 1);
      dtls_error(L, "EBADF", "the UDP socket is closed");
      return -1;
    }
  }
  int handle = lua_gettop(L);
  /* One binary serves every host because the descriptor comes through luv's own method; the metatable says that
     the userdata really is luv's. */
  bool is_udp = lua_isuserdata(L, handle) && lua_getmetatable(L, handle);
  if (is_udp) {
    luaL_getmetatable(L, "uv_udp");
    is_udp = !lua_isnil(L, -1) && lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  if (!is_udp) luaL_argerror(L, index, lua_pushfstring(L, "expected a luv UDP handle or a dgram socket, got %s", luaL_typename(L, index)));

  call_method(L, handle, "is_closing");
  bool closing = lua_isnil(L, -1) || lua_toboolean(L, -1);
  call_method(L, handle, "fileno");
  int fd = !closing && lua_isnumber(L, -1) ? (int)lua_tointeger(L, -1) : -1;
  lua_settop(L, handle - 1);
  if (fd < 0) dtls_error(L, "EBADF", closing ? "the UDP handle is closed" : "the UDP handle has no socket yet: bind or connect it first");
  return fd;
}

int dtls_udp_fd_lua(lua_State *L) {
  int fd = dtls_udp_fd(L, 1);
  if (fd < 0) return 2;
  lua_pushinteger(L, fd);
  return 1;
}

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
  bool known = family == AF_INET6 ? getsockopt(from, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &ttl, &size) == 0 : getsockopt(from, IPPROTO_IP, IP_TTL, &ttl, &size) == 0;
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

dtls_buffers dtls_udp_take_buffers(lua_State *L, int index) {
  return (dtls_buffers){.receive = (int)dtls_option_integer(L, index, "receive_buffer", 0, 0, INT32_MAX / 2),
                        .send = (int)dtls_option_integer(L, index, "send_buffer", 0, 0, INT32_MAX / 2)};
}

void dtls_udp_push_buffers(lua_State *L, int fd) {
  uint32_t memory[SK_MEMINFO_VARS];
  if (!read_memory(fd, memory)) return;
  lua_pushnumber(L, memory[SK_MEMINFO_RCVBUF]);
  lua_setfield(L, -2, "recvBufferSize");
  lua_pushnumber(L, memory[SK_MEMINFO_SNDBUF]);
  lua_setfield(L, -2, "sendBufferSize");
}

/*
 * core.configure_socket(fd, {reuse_port=bool, receive_buffer=bytes, send_buffer=bytes, ttl=hops}) → true | nil, err
 * Buffer sizes are wishes: the kernel caps them (net.core.rmem_max, wmem_max).
 */
int dtls_udp_socket_lua(lua_State *L) {
  int fd = (int)luaL_checkinteger(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  dtls_buffers buffers = dtls_udp_take_buffers(L, 2);
  int ttl = (int)dtls_option_integer(L, 2, "ttl", 0, 0, 255);
  dtls_address bound;
  lua_getfield(L, 2, "reuse_port");
  if ((lua_toboolean(L, -1) && !set(fd, SOL_SOCKET, SO_REUSEPORT, 1)) || !set_buffers(fd, buffers) ||
      (ttl && !(dtls_udp_local(fd, &bound) && set_ttl(fd, bound.sa.sa_family, ttl))))
    return dtls_error_system(L, errno, "cannot set a socket option");
  lua_pushboolean(L, 1);
  return 1;
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
  ok = ok && set_buffers(fd, buffers) && copy_ttl(listening, fd, local->sa.sa_family) && bind(fd, &local->sa, dtls_address_size(local)) == 0 && connect(fd, &peer->sa, dtls_address_size(peer)) == 0;
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
  return recvfrom(fd, data, capacity, MSG_DONTWAIT, &sender->sa, &size);
}

/* ── datagrams with their local address ── */

enum { BATCH = 32, CONTROL_SIZE = CMSG_SPACE(sizeof(struct in6_pktinfo)) + CMSG_SPACE(sizeof(struct in_pktinfo)) };

struct dtls_batch {
  struct mmsghdr messages[BATCH];
  struct iovec vectors[BATCH];
  dtls_address peers[BATCH];
  _Alignas(struct cmsghdr) uint8_t control[BATCH][CONTROL_SIZE];
  dtls_address bound;
  unsigned count, next;
  uint8_t bytes[BATCH][DTLS_DATAGRAM_MAX];
};

dtls_batch *dtls_batch_new(void) {
  dtls_batch *batch = OPENSSL_malloc(sizeof *batch); /* not zeroed: most of it is never touched */
  if (!batch) return NULL;
  memset(batch, 0, offsetof(dtls_batch, bytes));
  for (unsigned i = 0; i < BATCH; i++) {
    batch->vectors[i] = (struct iovec){batch->bytes[i], DTLS_DATAGRAM_MAX};
    batch->messages[i].msg_hdr = (struct msghdr){
        .msg_name = &batch->peers[i], .msg_iov = &batch->vectors[i], .msg_iovlen = 1, .msg_control = batch->control[i]};
  }
  return batch;
}

void dtls_batch_free(dtls_batch *batch) { OPENSSL_free(batch); }

/* recvmmsg where there is one; a kernel or a seccomp filter without it gets one recvmsg after the other. */
static int receive_many(int fd, struct mmsghdr *messages) {
  int n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
  if (n >= 0 || (errno != ENOSYS && errno != EPERM)) return n;
  for (n = 0; n < BATCH; n++) {
    ssize_t size = recvmsg(fd, &messages[n].msg_hdr, MSG_DONTWAIT);
    if (size < 0) return n > 0 ? n : -1;
    messages[n].msg_len = (unsigned)size;
  }
  return n;
}

bool dtls_batch_receive(dtls_batch *batch, int fd, const dtls_address *bound) {
  for (unsigned i = 0; i < BATCH; i++) {
    batch->messages[i].msg_hdr.msg_namelen = sizeof batch->peers[i];
    batch->messages[i].msg_hdr.msg_controllen = CONTROL_SIZE;
  }
  int n = receive_many(fd, batch->messages);
  batch->bound = *bound;
  batch->next = 0;
  batch->count = n > 0 ? (unsigned)n : 0;
  return n > 0;
}

/* The address a datagram was sent to, from its control messages; the port is the socket's own. */
static void local_address(struct msghdr *message, const dtls_address *bound, dtls_address *out) {
  *out = *bound;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && bound->sa.sa_family == AF_INET) {
      struct in_pktinfo info;
      memcpy(&info, CMSG_DATA(c), sizeof info);
      out->v4.sin_addr = info.ipi_spec_dst; /* ipi_addr would be the group for a multicast hello */
    } else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO && bound->sa.sa_family == AF_INET6) {
      struct in6_pktinfo info;
      memcpy(&info, CMSG_DATA(c), sizeof info);
      out->v6.sin6_addr = info.ipi6_addr;
      out->v6.sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? info.ipi6_ifindex : 0;
    }
  }
}

bool dtls_batch_pending(const dtls_batch *batch) { return batch->next < batch->count; }

bool dtls_batch_next(dtls_batch *batch, dtls_datagram *out) {
  if (!dtls_batch_pending(batch)) return false;
  unsigned i = batch->next++;
  out->data = batch->bytes[i];
  out->size = batch->messages[i].msg_len;
  out->peer = batch->peers[i];
  local_address(&batch->messages[i].msg_hdr, &batch->bound, &out->local);
  return true;
}

/* Sends from a given local address, which the dgram BIO cannot: on a wildcard socket the kernel would choose. */
ssize_t dtls_udp_send(int fd, const dtls_address *local, const dtls_address *peer, const void *data, size_t size) {
  _Alignas(struct cmsghdr) uint8_t control[CONTROL_SIZE] = {0};
  dtls_address to = *peer;
  struct iovec vector = {(void *)(uintptr_t)data, size};
  struct msghdr message = {.msg_name = &to, .msg_namelen = dtls_address_size(peer), .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control};
  struct cmsghdr *c = (struct cmsghdr *)(void *)control;
  if (local->sa.sa_family == AF_INET) {
    struct in_pktinfo info = {.ipi_spec_dst = local->v4.sin_addr};
    message.msg_controllen = CMSG_SPACE(sizeof info);
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
  } else {
    struct in6_pktinfo info = {.ipi6_addr = local->v6.sin6_addr, .ipi6_ifindex = local->v6.sin6_scope_id};
    message.msg_controllen = CMSG_SPACE(sizeof info);
    c->cmsg_level = IPPROTO_IPV6;
    c->cmsg_type = IPV6_PKTINFO;
    c->cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(c), &info, sizeof info);
  }
  return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}
