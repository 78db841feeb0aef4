/*
 * fork(): parent and child would seal different messages with the same nonces. How often this process is a child is
 * counted; an association of another count belongs to the parent and says nothing more here.
 */
#include "base/fork.h"

#include <pthread.h>
#include <stddef.h>

#include <openssl/crypto.h>

static unsigned generation; /* written only by a child, while it has one thread */
static bool watching;
static CRYPTO_ONCE once = CRYPTO_ONCE_STATIC_INIT;

static void in_child(void) { generation++; }
static void watch(void) { watching = pthread_atfork(NULL, NULL, in_child) == 0; }

bool dtls_fork_watch(void) { return CRYPTO_THREAD_run_once(&once, watch) == 1 && watching; }
unsigned dtls_fork_generation(void) { return generation; }
