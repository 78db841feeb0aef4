/*
 * fork(): parent and child would seal different messages with the same nonces. How often this process is a child is
 * counted; an association of another count belongs to the parent and says nothing more here.
 */
#include "core.h"

#include <pthread.h>

static unsigned generation;
static CRYPTO_ONCE once = CRYPTO_ONCE_STATIC_INIT;

static void in_child(void) { generation++; }
static void watch(void) { pthread_atfork(NULL, NULL, in_child); }

unsigned dtls_fork_generation(void) {
  CRYPTO_THREAD_run_once(&once, watch);
  return generation;
}

int dtls_fork_error(lua_State *L) {
  return dtls_error(L, "ERR_DTLS_FORKED", "the association belongs to the parent process: after fork() both would use the same nonces");
}
