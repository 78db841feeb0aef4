/*
 * A program that uses the system's OpenSSL, and takes the address of a function of it.
 */
#include <openssl/ssl.h>

typedef SSL *constructor(SSL_CTX *);

constructor *host_constructor(void);

constructor *host_constructor(void) { return SSL_new; }
