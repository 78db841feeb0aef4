/* Stateless cookies (RFC 6347 §4.2.1). */
#ifndef DTLS_ASSOCIATION_COOKIE_H
#define DTLS_ASSOCIATION_COOKIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/address.h"
#include "wire/client_hello.h"
#include "wire/record.h"

typedef struct dtls_cookies dtls_cookies;

dtls_cookies *dtls_cookies_new(void); /* random secret, rotated by itself until one is set; NULL: failure */
void dtls_cookies_free(dtls_cookies *cookies);
bool dtls_cookies_set(dtls_cookies *cookies, const void *current, size_t size, const void *previous,
                      size_t previous_size);
/* generation: a cookie is good for the generation that it was made with and no other, see dtls_origin. */
bool dtls_cookies_make(dtls_cookies *cookies, const dtls_address *peer, const dtls_hello *hello, uint16_t generation,
                       uint8_t out[DTLS_COOKIE_SIZE]);
bool dtls_cookies_verify(dtls_cookies *cookies, const dtls_address *peer, const dtls_hello *hello, uint16_t generation);

#endif
