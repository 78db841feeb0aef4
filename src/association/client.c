/* The association of a client: what is done with its socket, its name and its session before the first flight. */
#include "association/client.h"

#include <errno.h>
#include <unistd.h>

#include "association/association.h"
#include "association/deferral.h"
#include "association/endpoint.h"
#include "base/descriptor.h"
#include "identity/session.h"
#include "identity/verify.h"
#include "net/socket.h"

/*
 * What arrived before connect() is from anybody, and a server says nothing of DTLS before it is spoken to; what its peer said
 * in other protocols somebody may ask for.
 */
static void empty_socket_untrusted(dtls_association *a) {
  uint8_t data[DTLS_DATAGRAM_MAX];
  for (int i = 0; i < DTLS_DRAIN_MAX; i++) {
    dtls_address sender;
    ssize_t size = dtls_udp_receive(a->path->fd, data, sizeof data, &sender);
    if (size < 0 && errno == EAGAIN) return;
    if (size < 0 || (size_t)size > sizeof data || !a->others.wanted || !dtls_address_equal(&sender, &a->path->peer))
      continue;
    if (!dtls_multiplex_is_other_untrusted(data, (size_t)size)) continue;
    dtls_association_count_in(a, (size_t)size);
    dtls_multiplex_keep(a, data, (size_t)size);
  }
}

static bool prepare(dtls_association *a, const dtls_client_options *o) {
  const char *name = o->name.text;
  if (!dtls_verify_name(a->ssl, &o->name, o->check_name) || !dtls_session_bind(a->ssl, name, o->name.size))
    return false;
  a->offered = o->session ? dtls_session_parse(o->session, o->session_size) : NULL;
  if (a->offered) dtls_session_offer(a->ssl, a->offered, name);
  return true;
}

/* The path of the socket, which it closes when the descriptor is a duplicate. NULL: no memory. */
static dtls_path *open_path(dtls_association *a, int fd, bool owns_fd, const dtls_address *local,
                            const dtls_address *peer) {
  dtls_path *path = dtls_path_new(NULL, local, peer, fd, owns_fd);
  if (!path && owns_fd) close(fd);
  if (path && dtls_association_set_peer(a, path)) return path;
  if (path) dtls_path_free(path);
  return NULL;
}

dtls_association *dtls_client_new(SSL_CTX *ctx, int fd, const dtls_client_options *o, dtls_deferral *deferral,
                                  dtls_failure *f) {
  dtls_address local, peer;
  bool is_connected = dtls_udp_local(fd, &local) && dtls_udp_peer(fd, &peer);
  if (!is_connected || (o->duplicate && (fd = dtls_descriptor_duplicate(fd)) < 0)) {
    dtls_fail_system(f, errno, is_connected ? "cannot make a client" : "the socket has no peer");
    return NULL;
  }
  dtls_udp_announce_errors(fd);
  dtls_clear_errors();
  dtls_association *a = dtls_association_new(ctx, NULL, fd);
  if (!a && o->duplicate) close(fd);
  dtls_path *path = a ? open_path(a, fd, o->duplicate, &local, &peer) : NULL;
  if (path) {
    a->others.wanted = o->takes_others;
    dtls_deferral_join(deferral, a);
    dtls_path_attach(path, a);
    empty_socket_untrusted(a);
    if (prepare(a, o)) return a;
  }
  dtls_association_free(a);
  dtls_fail_openssl(f, "ERR_DTLS_CONFIG", "cannot make a client");
  return NULL;
}
