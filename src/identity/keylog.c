/*
 * The key log (SSLKEYLOGFILE's format): to a file that nobody but its owner may open, and as lines for the application.
 * Whoever reads it reads the traffic, so nothing is logged unless a context says so.
 */
#include "identity/keylog.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/platform.h"
#include "identity/context.h"
#include "identity/peer.h"

/* Appends a line to what the application has not taken yet. */
static void remember(dtls_peer *peer, const char *line) {
  size_t had = peer->keylog ? strlen(peer->keylog) : 0, size = strlen(line);
  char *grown = OPENSSL_clear_realloc(peer->keylog, had, had + size + 2);
  if (!grown) return;
  peer->keylog = grown;
  snprintf(grown + had, size + 2, "%s\n", line);
}

/* Takes a blocked SIGPIPE back, and does not wait for one. */
static void discard(const sigset_t *pipes) {
#if DTLS_HAS_SIGTIMEDWAIT
  sigtimedwait(pipes, NULL, &(const struct timespec){0, 0});
#else
  sigset_t pending;
  int taken;
  if (sigpending(&pending) == 0 && sigismember(&pending, SIGPIPE) == 1) (void)sigwait(pipes, &taken);
#endif
}

/* A full disk is no reason to refuse a peer, and a FIFO without a reader none to end the process (SIGPIPE). */
static void append(int fd, const char *line) {
  struct iovec parts[] = {{(void *)(uintptr_t)line, strlen(line)}, {(char[]){'\n'}, 1}};
  sigset_t pipes, before, pending;
  sigemptyset(&pipes);
  sigaddset(&pipes, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipes, &before);
  ssize_t written = writev(fd, parts, 2); /* O_APPEND: one line whole, whoever else writes there */
  if (written < 0 && errno == EPIPE && !sigismember(&pending, SIGPIPE)) discard(&pipes);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void log_line(const SSL *ssl, const char *line) {
  const dtls_config *c = dtls_config_of_ssl(ssl);
  if (c->keylog.fd >= 0) append(c->keylog.fd, line);
  if (c->keylog.event) remember(dtls_peer_of(ssl), line);
}

/* Why keys must not go to an open file; NULL: they may. Whoever else can open it reads them, or puts others in their place. */
static const char *exposure(int fd) {
  struct stat file;
  if (fstat(fd, &file) != 0) return strerror(errno);
  if (file.st_uid != geteuid()) return "another user owns it";
  if (file.st_mode & (S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH))
    return "others than its owner may read or write it (chmod 600)";
  if (S_ISREG(file.st_mode) && file.st_nlink > 1) return "it has another name elsewhere (a hard link)";
  return NULL;
}

/* The descriptor of the file, or -1 and why not. A link leads where somebody else may have wanted it to (O_NOFOLLOW). */
static int open_private(const char *path, const char **why) {
  int fd =
      open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW, S_IRUSR | S_IWUSR);
  *why = fd >= 0 ? exposure(fd) : errno == ELOOP ? "it is a symbolic link" : strerror(errno);
  if (fd < 0 || !*why) return fd;
  close(fd);
  return -1;
}

bool dtls_keylog_use(SSL_CTX *ctx, const char *file, bool event, dtls_failure *f) {
  dtls_keylog_config *k = &dtls_config_of(ctx)->keylog;
  const char *why;
  k->event = event;
  if (file && (k->fd = open_private(file, &why)) < 0) {
    char sentence[DTLS_SENTENCE_MAX];
    snprintf(sentence, sizeof sentence, "keylog: %s cannot be used: %s", file, why);
    return dtls_fail_config(f, sentence);
  }
  if (file || event) SSL_CTX_set_keylog_callback(ctx, log_line);
  return true;
}

void dtls_keylog_free(dtls_keylog_config *k) {
  if (k->fd >= 0) close(k->fd);
}
