/* The monotonic clock. */
#ifndef DTLS_BASE_CLOCK_H
#define DTLS_BASE_CLOCK_H

#include <stdint.h>

uint64_t dtls_now(void); /* ms */

#endif
