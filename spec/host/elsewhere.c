/*
 * For LD_PRELOAD: another machine's certificates. Whatever would be opened by an absolute path with "ssl", "pki" or "certs" in it
 * is looked for below the directory that ELSEWHERE names.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *moved(const char *path, char *buffer) {
  const char *root = getenv("ELSEWHERE");
  if (!root || path[0] != '/' || strncmp(path, root, strlen(root)) == 0) return path;
  if (!strstr(path, "ssl") && !strstr(path, "pki") && !strstr(path, "certs")) return path;
  snprintf(buffer, PATH_MAX, "%s%s", root, path);
  return buffer;
}

int open(const char *path, int flags, ...) {
  char buffer[PATH_MAX];
  int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
  return real(moved(path, buffer), flags, 0600); /* of a file that is made */
}

FILE *fopen(const char *path, const char *mode) {
  char buffer[PATH_MAX];
  FILE *(*real)(const char *, const char *) = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen");
  return real(moved(path, buffer), mode);
}

FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }

DIR *opendir(const char *path) {
  char buffer[PATH_MAX];
  DIR *(*real)(const char *) = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
  return real(moved(path, buffer));
}
