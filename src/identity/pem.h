/* Reading PEM without ever asking at a terminal. */
#ifndef DTLS_IDENTITY_PEM_H
#define DTLS_IDENTITY_PEM_H

#include <stdbool.h>

/* OpenSSL's pem_password_cb; secret: the passphrase, or NULL */
int dtls_no_passphrase(char *buffer, int size, int writing, void *secret);
bool dtls_at_end_of_pem(void); /* whether the last PEM read failed only because the text was at its end */

#endif
