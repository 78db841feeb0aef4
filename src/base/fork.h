/* fork(): whether this process still is the one that made an association. */
#ifndef DTLS_BASE_FORK_H
#define DTLS_BASE_FORK_H

#include <stdbool.h>

bool dtls_fork_watch(void);          /* when the module is loaded; false: no memory, and it must not be used */
unsigned dtls_fork_generation(void); /* another one in a child process than in its parent */

#endif
