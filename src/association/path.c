/*
 * The 4-tuple (local address, peer address, and their ports), the associations that live on it, and the table of all paths.
 * Decides which association a datagram belongs to; both demux strategies ask here. Owns the peer socket.
 */
#include "association/path.h"

#include <string.h>
#include <unistd.h>

#include "association/association.h"
#include "association/deferral.h"
#include "association/endpoint.h"
#include "base/clock.h"
#include "base/fork.h"
#include "base/openssl.h"

/* ── the table ── */

struct dtls_paths {
  OPENSSL_LHASH *table;
  /* of the same in a list: a table without types of its own cannot be walked in OpenSSL 3.4 and later */
  dtls_path *first;
  dtls_path *recent; /* the one that was found last: what comes together mostly is one peer's */
  uint64_t seed;     /* whoever has many addresses could choose them to collide */
};

static unsigned long path_hash(const void *item) {
  const dtls_path *path = item;
  return (unsigned long)dtls_address_hash(path->seed, &path->local, &path->peer);
}

static int path_compare(const void *left, const void *right) {
  const dtls_path *a = left, *b = right;
  return !(dtls_address_equal(&a->peer, &b->peer) && dtls_address_equal(&a->local, &b->local));
}

dtls_paths *dtls_paths_new(void) {
  dtls_paths *paths = OPENSSL_zalloc(sizeof *paths);
  if (!paths) return NULL;
  if (RAND_bytes((unsigned char *)&paths->seed, sizeof paths->seed) == 1)
    paths->table = OPENSSL_LH_new(path_hash, path_compare);
  if (paths->table) return paths;
  OPENSSL_free(paths);
  return NULL;
}

void dtls_paths_free(dtls_paths *paths) {
  if (!paths) return;
  OPENSSL_LH_free(paths->table); /* the paths themselves go with their last association */
  OPENSSL_free(paths);
}

static bool add(dtls_paths *paths, dtls_path *path) {
  path->seed = paths->seed;
  OPENSSL_LH_insert(paths->table, path);
  if (OPENSSL_LH_error(paths->table)) return false;
  path->after = paths->first;
  if (path->after) path->after->before = path;
  paths->first = path;
  return true;
}

static void take_off(dtls_paths *paths, dtls_path *path) {
  OPENSSL_LH_delete(paths->table, path);
  if (paths->recent == path) paths->recent = NULL;
  if (path->before)
    path->before->after = path->after;
  else
    paths->first = path->after;
  if (path->after) path->after->before = path->before;
}

dtls_path *dtls_paths_find(dtls_paths *paths, const dtls_address *local, const dtls_address *peer) {
  dtls_path key = {.local = *local, .peer = *peer, .seed = paths->seed};
  if (!paths->recent || path_compare(paths->recent, &key) != 0) paths->recent = OPENSSL_LH_retrieve(paths->table, &key);
  return paths->recent;
}

dtls_path *dtls_paths_take_foreign(dtls_paths *paths) {
  for (dtls_path *path = paths->first; path; path = path->after) {
    if (path->fd < 0 || path->given_up || path->fork_generation == dtls_fork_generation()) continue;
    path->given_up = true;
    return path;
  }
  return NULL;
}

void dtls_paths_count_overflow(const dtls_paths *paths) {
  for (dtls_path *path = paths->first; path; path = path->after) dtls_path_count_overflow(path);
}

/* ── a path ── */

dtls_path *dtls_path_new(dtls_endpoint *ep, const dtls_address *local, const dtls_address *peer, int fd, bool owns_fd) {
  dtls_path *path = OPENSSL_zalloc(sizeof *path);
  if (!path) return NULL;
  path->endpoint = ep;
  path->local = *local;
  path->peer = *peer;
  path->fd = fd;
  path->owns_fd = owns_fd;
  path->fork_generation = dtls_fork_generation();
  if (!ep) (void)dtls_udp_overflow(fd, &path->overflow_seen); /* drops from before this path are the caller's */
  if (ep && !add(ep->paths, path)) {
    OPENSSL_free(path);
    return NULL;
  }
  return path;
}

/*
 * A peer that closed may have come back by now: its hello is in this socket, behind the close_notify. Connected to itself
 * the socket gets nothing more, the endpoint's gets the peer's datagrams from then on, and none falls in between.
 * After fork() the socket is the parent's as well, which goes on to read it.
 */
static void close_peer_socket(dtls_path *path) {
  dtls_endpoint *ep = path->endpoint;
  if (ep && ep->fd >= 0 && path->fork_generation == dtls_fork_generation()) {
    /* if connect fails, datagrams that arrive until close are lost */
    (void)connect(path->fd, &path->local.sa, dtls_address_size(&path->local));
    dtls_intake_drain(ep, path);
  }
  dtls_path_count_overflow(path);
  close(path->fd);
}

void dtls_path_free(dtls_path *path) {
  dtls_endpoint *ep = path->endpoint;
  if (ep && ep->paths) take_off(ep->paths, path);
  if (ep) dtls_intake_remove_peer(ep, path);
  if (ep && ep->pace) dtls_pace_remember(ep->pace, &path->local, &path->peer, path->paced_until);
  if (path->owns_fd && path->fd >= 0) close_peer_socket(path);
  OPENSSL_free(path);
}

const dtls_association *dtls_path_of_random(const dtls_path *path, const uint8_t *random) {
  if (path->successor && memcmp(random, path->successor->origin.random, DTLS_RANDOM_SIZE) == 0) return path->successor;
  return memcmp(random, path->current->origin.random, DTLS_RANDOM_SIZE) == 0 ? path->current : NULL;
}

dtls_destination dtls_path_classify_untrusted(const dtls_path *path, const uint8_t *data, size_t size) {
  const dtls_association *successor = path->successor;
  if (size < DTLS_RECORD_HEADER) return DTLS_TO_CURRENT; /* the record filter counts and drops it */
  if (dtls_record_epoch(data) != 0) return successor ? DTLS_TO_BOTH : DTLS_TO_CURRENT;

  bool is_hello = data[0] == SSL3_RT_HANDSHAKE && size > DTLS_RECORD_HEADER + DTLS_HANDSHAKE_HEADER &&
                  data[DTLS_RECORD_HEADER] == SSL3_MT_CLIENT_HELLO;
  dtls_hello hello;
  if (is_hello && dtls_hello_parse_untrusted(data, size, &hello)) {
    /* A network that doubles or delays datagrams replays an association's own hello: that is not a new client. */
    const dtls_association *same = dtls_path_of_random(path, hello.random);
    /* For these, dtls_listener_hear_untrusted tells a replay from a client that starts over. */
    if (!same || same->open || hello.cookie_size == 0) return DTLS_TO_HELLO;
    return same == successor ? DTLS_TO_SUCCESSOR : DTLS_TO_CURRENT;
  }
  /* Other records of epoch 0, later fragments of a hello among them, belong to the newest handshake; the record filter of
     an open association drops them, which repeats its last flight because of Finished (RFC 6347 §4.2.4). */
  return successor ? DTLS_TO_SUCCESSOR : DTLS_TO_CURRENT;
}

void dtls_path_attach(dtls_path *path, dtls_association *a) {
  a->path = path;
  if (path->current)
    path->successor = a;
  else
    path->current = a;
}

void dtls_path_detach(dtls_association *a) {
  dtls_path *path = a->path;
  if (!path) return;
  dtls_deferral_leave(a);
  a->path = NULL;
  if (path->successor != a) path->current = path->successor;
  path->successor = NULL;
  if (!path->current) dtls_path_free(path);
}

void dtls_path_count_overflow(dtls_path *path) {
  uint32_t lost = path->fd >= 0 ? dtls_udp_overflow(path->fd, &path->overflow_seen) : 0;
  if (lost == 0) return;
  if (path->current)
    DTLS_COUNT(path->current, drops[DTLS_DROP_OVERFLOWED], lost);
  else if (path->endpoint)
    path->endpoint->counters.drops[DTLS_DROP_OVERFLOWED] += lost;
}

/* ── how often a handshake may begin ── */

void dtls_path_pace(dtls_path *path, unsigned interval) { path->paced_until = dtls_now() + interval; }

void dtls_path_silence(dtls_path *path) {
  dtls_association *newest = dtls_path_newest(path);
  if (!newest->open) newest->output.silent = true;
}
