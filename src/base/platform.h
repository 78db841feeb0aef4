/*
 * What kernels and C libraries have besides POSIX: DTLS_HAS_…, 1 or 0. Each is asked for at one place in src, where the way
 * without it stands beside it; no other file asks which system it is compiled for. With DTLS_PORTABLE (make PORTABLE=1) all are 0, so
 * that the tests run the other ways on Linux. doc/portability.md says what an application notices.
 */
#ifndef DTLS_BASE_PLATFORM_H
#define DTLS_BASE_PLATFORM_H

#ifdef __APPLE__
#define __APPLE_USE_RFC_3542 /* else macOS has IPV6_PKTINFO by an older name */
#endif

#include <netinet/in.h>
#include <sys/socket.h>

#if defined __linux__ && !defined DTLS_PORTABLE
#define DTLS_ON_LINUX 1
#else
#define DTLS_ON_LINUX 0
#endif

/* ── kernels ── */

#define DTLS_HAS_EPOLL DTLS_ON_LINUX        /* one descriptor that tells which of many can be read */
#define DTLS_HAS_MMSG DTLS_ON_LINUX         /* recvmmsg, sendmmsg. FreeBSD's are loops in its C library */
#define DTLS_HAS_SEGMENTS DTLS_ON_LINUX     /* UDP_SEGMENT (4.18): the kernel cuts what is sent into datagrams */
#define DTLS_HAS_COALESCING DTLS_ON_LINUX   /* UDP_GRO (5.0): datagrams of one sender come in as one message */
#define DTLS_HAS_DROP_COUNT DTLS_ON_LINUX   /* SO_MEMINFO (4.12): how many datagrams a socket had no room for */
#define DTLS_HAS_ERROR_EVENTS DTLS_ON_LINUX /* SO_SELECT_ERR_QUEUE: a pending error is an event of its own for poll */
#define DTLS_HAS_WHOLE_SIZE DTLS_ON_LINUX   /* MSG_TRUNC, given to recv: how long a datagram was that has been cut */
#define DTLS_HAS_ZERO_PAGES DTLS_ON_LINUX /* MADV_DONTNEED: memory of malloc that is given back comes again as zeroes */

#if defined SO_REUSEPORT && !defined DTLS_PORTABLE
#define DTLS_HAS_REUSEPORT 1 /* several sockets on one port, of which the connected ones get what their peers send */
#else
#define DTLS_HAS_REUSEPORT 0
#endif

/* The local address of a datagram: IPv6 has it by RFC 3542, IPv4 in one of two ways. */
#if defined IP_SENDSRCADDR && !defined DTLS_PORTABLE
#define DTLS_HAS_DSTADDR 1 /* IP_RECVDSTADDR, IP_SENDSRCADDR: FreeBSD and its kin */
#else
#define DTLS_HAS_DSTADDR 0
#endif
#if defined IP_PKTINFO && !DTLS_HAS_DSTADDR && !defined DTLS_PORTABLE
#define DTLS_HAS_PKTINFO 1 /* IP_PKTINFO: Linux, macOS */
#else
#define DTLS_HAS_PKTINFO 0
#endif
#define DTLS_HAS_LOCAL_ADDRESS (DTLS_HAS_PKTINFO || DTLS_HAS_DSTADDR)

#if defined SOCK_NONBLOCK && defined SOCK_CLOEXEC && !defined DTLS_PORTABLE
#define DTLS_HAS_SOCKET_FLAGS 1
#else
#define DTLS_HAS_SOCKET_FLAGS 0
#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS: a UDP socket there raises no SIGPIPE */
#endif

/* A message of recvmmsg and sendmmsg. */
#if DTLS_HAS_MMSG
typedef struct mmsghdr dtls_message;
#else
typedef struct {
  struct msghdr msg_hdr;
  unsigned msg_len;
} dtls_message;
#endif

/* ── C libraries ── */

#ifdef __GLIBC__
#define DTLS_HAS_GNU_STRERROR 1 /* with _GNU_SOURCE, strerror_r returns the text; else 0 or an error */
#else
#define DTLS_HAS_GNU_STRERROR 0
#endif

#ifdef __APPLE__
#define DTLS_ST_MTIM st_mtimespec /* POSIX calls these members of struct stat st_mtim and st_ctim */
#define DTLS_ST_CTIM st_ctimespec
#else
#define DTLS_ST_MTIM st_mtim
#define DTLS_ST_CTIM st_ctim
#endif

#if defined __GLIBC__ && !defined DTLS_PORTABLE
#define DTLS_HAS_SYMBOL_VERSIONS 1 /* dlvsym, dladdr1 */
#else
#define DTLS_HAS_SYMBOL_VERSIONS 0
#endif

#if defined __ELF__ && !defined DTLS_PORTABLE
#define DTLS_HAS_PROGRAM_HEADERS 1 /* dl_iterate_phdr */
#else
#define DTLS_HAS_PROGRAM_HEADERS 0
#endif

#if (defined __linux__ || defined __FreeBSD__ || defined __NetBSD__) && !defined DTLS_PORTABLE
#define DTLS_HAS_SIGTIMEDWAIT 1
#else
#define DTLS_HAS_SIGTIMEDWAIT 0
#endif

#if defined __linux__ && !defined DTLS_PORTABLE
#define DTLS_HAS_SECURE_GETENV 1
#else
#define DTLS_HAS_SECURE_GETENV 0
#endif

/* Constant, name in core.platform(). */
#define DTLS_FEATURES(X) \
  X(EPOLL, "epoll") \
  X(MMSG, "mmsg") \
  X(SEGMENTS, "segments") \
  X(COALESCING, "coalescing") \
  X(DROP_COUNT, "drop_count") \
  X(ERROR_EVENTS, "error_events") \
  X(WHOLE_SIZE, "whole_size") \
  X(ZERO_PAGES, "zero_pages") \
  X(REUSEPORT, "reuseport") \
  X(LOCAL_ADDRESS, "local_address") \
  X(SOCKET_FLAGS, "socket_flags") \
  X(SYMBOL_VERSIONS, "symbol_versions") \
  X(PROGRAM_HEADERS, "program_headers") \
  X(SIGTIMEDWAIT, "sigtimedwait") \
  X(SECURE_GETENV, "secure_getenv")

#endif
