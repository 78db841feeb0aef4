/*
 * An OpenSSL as luvi 2.15 brings it, linked in front of the real one, whose definitions of these functions lose: built without
 * stdio, so that it opens no file, and for directories of the machine that built it.
 */
#include <openssl/bio.h>
#include <openssl/x509.h>

const char *X509_get_default_cert_file(void) { return "/nowhere/ssl/cert.pem"; }

const char *X509_get_default_cert_dir(void) { return "/nowhere/ssl/certs"; }

const BIO_METHOD *BIO_s_file(void) { return BIO_s_null(); }

BIO *BIO_new_file(const char *name, const char *mode) {
  (void)name, (void)mode;
  return NULL;
}
