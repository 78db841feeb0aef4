/*
 * For LD_PRELOAD: a host that fails when it is told to. The Lua of the same process says through the FFI which calls
 * fail, and how (spec/support/faults.lua): system calls on UDP sockets, allocations of libcrypto, the clocks.
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <link.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

/* ── what fails ── */

typedef struct {
  const char *name;
  unsigned long calls; /* since it was set */
  unsigned long first, count;
  int error;
} fault;

static fault faults[] = {{.name = "send"},    {.name = "receive"},    {.name = "socket"},     {.name = "bind"},
                         {.name = "connect"}, {.name = "getsockopt"}, {.name = "setsockopt"}, {.name = "turn"},
                         {.name = "memory"},  {.name = "segments"},   {.name = "watch"}};
enum { SEND, RECEIVE, SOCKET, BIND, CONNECT, GETSOCKOPT, SETSOCKOPT, TURN, MEMORY, SEGMENTS, WATCH };

static fault *find(const char *name) {
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
    if (strcmp(faults[i].name, name) == 0) return &faults[i];
  abort();
}

/* Of the calls from now on, the first-th and the count - 1 after it fail with that errno. count 0: none does. */
void faults_set(const char *name, unsigned long first, unsigned long count, int error) {
  fault *f = find(name);
  *f = (fault){.name = f->name, .first = first, .count = count, .error = error};
}

unsigned long faults_calls(const char *name) { return find(name)->calls; }

static bool fails(int kind) {
  fault *f = &faults[kind];
  f->calls++;
  if (f->count == 0 || f->calls < f->first || f->calls - f->first >= f->count) return false;
  errno = f->error;
  return true;
}

/* ── system calls ── */

static bool is_udp(int fd) {
  int type = 0, domain = 0;
  socklen_t size = sizeof type;
  int saved = errno;
  bool known = syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
               syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0;
  errno = saved;
  return known && type == SOCK_DGRAM && (domain == AF_INET || domain == AF_INET6);
}

static bool call_fails(int kind, int fd) { return is_udp(fd) && fails(kind); }

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *peer, socklen_t peer_size) {
  return call_fails(SEND, fd) ? -1 : syscall(SYS_sendto, fd, data, size, flags, peer, peer_size);
}

ssize_t send(int fd, const void *data, size_t size, int flags) { return sendto(fd, data, size, flags, NULL, 0); }

/* Whether the kernel is to cut the message into datagrams (UDP GSO). */
static bool has_segments(const struct msghdr *message) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR((struct msghdr *)(uintptr_t)message, c))
    if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_SEGMENT) return true;
  return false;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  if (call_fails(SEND, fd) || (has_segments(message) && fails(SEGMENTS))) return -1;
  return syscall(SYS_sendmsg, fd, message, flags);
}

/* As the kernel does, it says of a message that fails behind others how many were sent. */
int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
  if (call_fails(SEND, fd)) return -1;
  for (unsigned int i = 0; i < count; i++) {
    if (!has_segments(&messages[i].msg_hdr) || !fails(SEGMENTS)) continue;
    if (i == 0) return -1;
    count = i;
    faults[SEGMENTS].calls--; /* it is tried again as the first one */
  }
  return (int)syscall(SYS_sendmmsg, fd, messages, count, flags);
}

ssize_t write(int fd, const void *data, size_t size) {
  return call_fails(SEND, fd) ? -1 : syscall(SYS_write, fd, data, size);
}

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *peer, socklen_t *peer_size) {
  return call_fails(RECEIVE, fd) ? -1 : syscall(SYS_recvfrom, fd, data, size, flags, peer, peer_size);
}

ssize_t recv(int fd, void *data, size_t size, int flags) { return recvfrom(fd, data, size, flags, NULL, NULL); }

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
  return call_fails(RECEIVE, fd) ? -1 : syscall(SYS_recvmsg, fd, message, flags);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout) {
  return call_fails(RECEIVE, fd) ? -1 : (int)syscall(SYS_recvmmsg, fd, messages, count, flags, timeout);
}

ssize_t read(int fd, void *data, size_t size) {
  return call_fails(RECEIVE, fd) ? -1 : syscall(SYS_read, fd, data, size);
}

int socket(int domain, int type, int protocol) {
  bool udp = (domain == AF_INET || domain == AF_INET6) && (type & 0xf) == SOCK_DGRAM;
  return udp && fails(SOCKET) ? -1 : (int)syscall(SYS_socket, domain, type, protocol);
}

int bind(int fd, const struct sockaddr *address, socklen_t size) {
  return call_fails(BIND, fd) ? -1 : (int)syscall(SYS_bind, fd, address, size);
}

int connect(int fd, const struct sockaddr *address, socklen_t size) {
  return call_fails(CONNECT, fd) ? -1 : (int)syscall(SYS_connect, fd, address, size);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *size) {
  return call_fails(GETSOCKOPT, fd) ? -1 : (int)syscall(SYS_getsockopt, fd, level, name, value, size);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t size) {
  return call_fails(SETSOCKOPT, fd) ? -1 : (int)syscall(SYS_setsockopt, fd, level, name, value, size);
}

/* The core's own, which notes a pointer where libuv notes a descriptor. */
int epoll_ctl(int fd, int operation, int of, struct epoll_event *event) {
  bool own = operation == EPOLL_CTL_ADD && event->data.u64 > UINT32_MAX;
  return own && fails(WATCH) ? -1 : (int)syscall(SYS_epoll_ctl, fd, operation, of, event);
}

int epoll_create1(int flags) { return fails(WATCH) ? -1 : (int)syscall(SYS_epoll_create1, flags); }

/* ── turns of the event loop, which are counted only ── */

int epoll_pwait(int fd, struct epoll_event *events, int count, int timeout, const sigset_t *mask) {
  faults[TURN].calls++;
  return (int)syscall(SYS_epoll_pwait, fd, events, count, timeout, mask, 8);
}

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout) {
  return epoll_pwait(fd, events, count, timeout, NULL);
}

/* ── the clocks ── */

enum { NANOSECONDS = 1000000000 };

static int64_t ahead;            /* seconds */
static int64_t passed, per_look; /* nanoseconds */

/* The wall clock is set. */
void faults_jump(double seconds) { ahead += (int64_t)seconds; }

/* So much time goes by. */
void faults_pass(double seconds) { passed += (int64_t)(seconds * NANOSECONDS); }

/* So much time goes by whenever libssl looks at the clock, as if the process had to wait for a processor. */
void faults_drag(double seconds) { per_look = (int64_t)(seconds * NANOSECONDS); }

int clock_gettime(clockid_t id, struct timespec *now) {
  int result = (int)syscall(SYS_clock_gettime, id, now);
  if (result != 0) return result;
  int64_t rest = now->tv_nsec + passed % NANOSECONDS;
  now->tv_sec += (time_t)(passed / NANOSECONDS + rest / NANOSECONDS);
  now->tv_nsec = (long)(rest % NANOSECONDS);
  if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += (time_t)ahead;
  return 0;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  passed += per_look;
  clock_gettime(CLOCK_REALTIME, &precise);
  *now = (struct timeval){precise.tv_sec, precise.tv_nsec / 1000};
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

/* ── libcrypto's memory ── */

static long blocks;
static void *trace[64];
static int depth;

static const char *within, *within_end;

/* Only allocations on behalf of that function of OpenSSL's are counted and fail; NULL: all. */
void faults_within(const char *function) {
  Dl_info info;
  const ElfW(Sym) *symbol = NULL;
  within = function ? dlsym(RTLD_DEFAULT, function) : NULL;
  if (!function) return;
  if (!within || !dladdr1(within, &info, (void **)(void *)&symbol, RTLD_DL_SYMENT) || !symbol) abort();
  within_end = within + symbol->st_size;
}

static bool is_within(void) {
  void *callers[24];
  int count = backtrace(callers, sizeof callers / sizeof *callers);
  for (int i = 0; i < count; i++)
    if ((const char *)callers[i] > within && (const char *)callers[i] <= within_end) return true;
  return false;
}

static bool no_memory(void) {
  if ((within && !is_within()) || !fails(MEMORY)) return false;
  if (depth == 0) depth = backtrace(trace, sizeof trace / sizeof *trace);
  return true;
}

static void *allocate(size_t size, const char *file, int line) {
  (void)file, (void)line;
  void *block = no_memory() ? NULL : malloc(size);
  if (block) blocks++;
  return block;
}

static void release(void *block, const char *file, int line) {
  (void)file, (void)line;
  if (block) blocks--;
  free(block);
}

static void *reallocate(void *block, size_t size, const char *file, int line) {
  if (!block) return allocate(size, file, line);
  if (size == 0) {
    release(block, file, line);
    return NULL;
  }
  return no_memory() ? NULL : realloc(block, size);
}

/* Before libcrypto allocates anything; false: it is too late. */
bool faults_own_memory(void) { return CRYPTO_set_mem_functions(allocate, reallocate, release) == 1; }

long faults_blocks(void) { return blocks; }

/* The reason of the oldest entry of OpenSSL's queue, "" when it is empty. */
const char *faults_leftover(void) {
  static char text[256];
  unsigned long entry = ERR_peek_error();
  text[0] = '\0';
  if (entry != 0) ERR_error_string_n(entry, text, sizeof text);
  return text;
}

/* Who wanted the memory that was refused first since this was asked last: a line for each caller. */
const char *faults_where(void) {
  static char text[8192];
  size_t used = 0;
  text[0] = '\0';
  for (int i = 2; i < depth && used < sizeof text; i++) {
    Dl_info info;
    if (!dladdr(trace[i], &info)) continue;
    const char *file = info.dli_fname ? strrchr(info.dli_fname, '/') : NULL;
    used +=
        (size_t)snprintf(text + used, sizeof text - used, "%s %s+0x%zx\n", file ? file + 1 : "?",
                         info.dli_sname ? info.dli_sname : "?", (size_t)((char *)trace[i] - (char *)info.dli_fbase));
  }
  depth = 0;
  return text;
}
