/*
 * What a program pulls in that uses OpenSSL for hashing only: a small part of libcrypto and nothing of libssl.
 */
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

unsigned long host_hash(const void *data, size_t size, unsigned char *digest);

unsigned long host_hash(const void *data, size_t size, unsigned char *digest) {
  if (RAND_status() != 1 || !EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL)) return ERR_get_error();
  return OpenSSL_version_num();
}
