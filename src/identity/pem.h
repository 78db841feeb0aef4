/*
 * What every reader of PEM text needs: the text as a BIO, its end, and a passphrase callback, without which libcrypto would ask
 * for a passphrase at the terminal. Owns nothing.
 */
#ifndef DTLS_IDENTITY_PEM_H
#define DTLS_IDENTITY_PEM_H

#include <stdbool.h>
#include <stddef.h>

#include "base/openssl.h"

BIO *dtls_pem_open(const char *text, size_t size); /* reads the caller's text, which must outlive it; NULL: no memory */
/* The pem_password_cb of every read; secret: the passphrase, or NULL, and then an encrypted key cannot be read. */
int dtls_pem_passphrase(char *buffer, int size, int writing, void *secret);
bool dtls_pem_at_end(void); /* whether the last PEM read failed only because the text was at its end */

#endif
