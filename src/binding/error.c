/*
 * Failures as Lua values: nil and an error object {code=, message=[, reason=][, alert=]} whose tostring is
 * "code: message", which concatenates with texts. Translates errno, OpenSSL's error queue, alerts and certificate verification results.
 */
#include "binding/error.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/openssl.h"
#include "identity/verify.h"

static const char TYPE[] = "dtls.error";

static int error_tostring(lua_State *L) {
  lua_getfield(L, 1, "code");
  lua_pushliteral(L, ": ");
  lua_getfield(L, 1, "message");
  lua_concat(L, 3);
  return 1;
}

/* 'x: ' .. err, as if the error were its text. */
static int error_concat(lua_State *L) {
  for (int i = 1; i <= 2; i++) {
    if (luaL_callmeta(L, i, "__tostring")) lua_replace(L, i);
    if (!lua_isstring(L, i)) return luaL_error(L, "attempt to concatenate a %s value with an error", luaL_typename(L, i));
  }
  lua_concat(L, 2);
  return 1;
}

void dtls_error_init(lua_State *L) {
  static const luaL_Reg methods[] = {{"__tostring", error_tostring}, {"__concat", error_concat}, {NULL, NULL}};
  dtls_register(L, TYPE, methods);
}

/* Turns the message on top of the stack into nil and an error object. */
static int wrap(lua_State *L, const char *code) {
  int message = lua_gettop(L);
  lua_pushnil(L);
  lua_createtable(L, 0, 3);
  lua_pushstring(L, code);
  lua_setfield(L, -2, "code");
  lua_pushvalue(L, message);
  lua_setfield(L, -2, "message");
  dtls_push_metatable(L, TYPE);
  lua_setmetatable(L, -2);
  lua_remove(L, message);
  return 2;
}

int dtls_error(lua_State *L, const char *code, const char *format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  lua_pushstring(L, message);
  return wrap(L, code);
}

void dtls_error_push_text(lua_State *L, const char *bytes, size_t size) {
  enum { SHOWN_MAX = 64, ESCAPED = 4 };
  char shown[SHOWN_MAX * ESCAPED + 1] = "";
  size_t length = 0;
  for (size_t i = 0; i < size && i < SHOWN_MAX; i++) {
    unsigned char byte = (unsigned char)bytes[i];
    bool plain = byte >= ' ' && byte <= '~' && byte != '\\';
    length += (size_t)snprintf(shown + length, sizeof shown - length, plain ? "%c" : "\\x%02x", byte);
  }
  lua_pushfstring(L, "'%s%s'", shown, size > SHOWN_MAX ? "..." : "");
}

/* core.error(code, message[, {reason=, alert=}]) → an error object */
int dtls_error_new(lua_State *L) {
  const char *code = luaL_checkstring(L, 1);
  luaL_checkstring(L, 2);
  lua_settop(L, 3);
  lua_pushvalue(L, 2);
  wrap(L, code);
  if (lua_istable(L, 3)) {
    lua_pushnil(L);
    while (lua_next(L, 3)) {
      lua_pushvalue(L, -2);
      lua_insert(L, -2);
      lua_rawset(L, -4);
    }
  }
  return 1;
}

static const char *errno_name(int number) {
  switch (number) {
#define X(name) \
  case name: return #name;
    X(EACCES) X(EADDRINUSE) X(EADDRNOTAVAIL) X(EAFNOSUPPORT) X(EAGAIN) X(EBADF) X(ECONNREFUSED) X(ECONNRESET) X(EDESTADDRREQ)
    X(EFAULT) X(EHOSTDOWN) X(EHOSTUNREACH) X(EINTR) X(EINVAL) X(EIO) X(EISCONN) X(EMFILE) X(EMSGSIZE) X(ENETDOWN) X(ENETUNREACH)
    X(ENFILE) X(ENOBUFS) X(ENODEV) X(ENOENT) X(ENOMEM) X(ENOPROTOOPT) X(ENOTCONN) X(ENOTSOCK) X(EOPNOTSUPP) X(EPERM) X(EPIPE)
    X(EPROTO) X(ETIMEDOUT)
#undef X
    default: return "ERR_DTLS_SYSTEM";
  }
}

int dtls_error_system(lua_State *L, int number, const char *what) {
  char reason[128];
  ERR_clear_error();
  const char *text = strerror_r(number, reason, sizeof reason);
  return dtls_error(L, errno_name(number), "%s: %s", what, text);
}

/* RFC 5246's name of an alert: "handshake_failure". */
static void push_alert_name(lua_State *L, int description) {
  char name[64];
  snprintf(name, sizeof name, "%s", SSL_alert_desc_string_long(description));
  for (char *p = name; *p; p++) *p = (char)(*p == ' ' ? '_' : tolower((unsigned char)*p));
  lua_pushstring(L, name);
}

/* before and after: the sentence around the alert's name. */
static int alert_error(lua_State *L, int description, const char *before, const char *after) {
  push_alert_name(L, description);
  int name = lua_gettop(L);
  dtls_error(L, "ERR_DTLS_ALERT", "%s %s%s", before, lua_tostring(L, name), after);
  lua_pushvalue(L, name);
  lua_setfield(L, -2, "alert");
  lua_remove(L, name);
  return 2;
}

int dtls_error_alert(lua_State *L, int description) {
  return alert_error(L, description, "the peer ended the association with the alert", "");
}

int dtls_error_warning(lua_State *L, int description) {
  return alert_error(L, description, "the peer sent the warning alert", ", at which this OpenSSL ends an association");
}

/* OpenSSL's and Node's names: the constant without its prefix. */
const char *dtls_error_verify_name(long verify_result) {
  switch (verify_result) {
#define X(name) \
  case X509_V_ERR_##name: return #name;
    X(UNSPECIFIED) X(UNABLE_TO_GET_ISSUER_CERT) X(UNABLE_TO_GET_CRL) X(UNABLE_TO_DECRYPT_CERT_SIGNATURE)
    X(UNABLE_TO_DECRYPT_CRL_SIGNATURE) X(UNABLE_TO_DECODE_ISSUER_PUBLIC_KEY) X(CERT_SIGNATURE_FAILURE) X(CRL_SIGNATURE_FAILURE)
    X(CERT_NOT_YET_VALID) X(CERT_HAS_EXPIRED) X(CRL_NOT_YET_VALID) X(CRL_HAS_EXPIRED) X(ERROR_IN_CERT_NOT_BEFORE_FIELD)
    X(ERROR_IN_CERT_NOT_AFTER_FIELD) X(ERROR_IN_CRL_LAST_UPDATE_FIELD) X(ERROR_IN_CRL_NEXT_UPDATE_FIELD) X(OUT_OF_MEM)
    X(DEPTH_ZERO_SELF_SIGNED_CERT) X(SELF_SIGNED_CERT_IN_CHAIN) X(UNABLE_TO_GET_ISSUER_CERT_LOCALLY)
    X(UNABLE_TO_VERIFY_LEAF_SIGNATURE) X(CERT_CHAIN_TOO_LONG) X(CERT_REVOKED) X(INVALID_CA) X(PATH_LENGTH_EXCEEDED)
    X(INVALID_PURPOSE) X(CERT_UNTRUSTED) X(CERT_REJECTED) X(HOSTNAME_MISMATCH) X(EMAIL_MISMATCH) X(IP_ADDRESS_MISMATCH)
    X(EE_KEY_TOO_SMALL) X(CA_KEY_TOO_SMALL) X(CA_MD_TOO_WEAK) X(UNHANDLED_CRITICAL_EXTENSION) X(KEYUSAGE_NO_CERTSIGN)
    X(PERMITTED_VIOLATION) X(EXCLUDED_VIOLATION)
#undef X
    case X509_V_ERR_APPLICATION_VERIFICATION: return "FINGERPRINT_MISMATCH"; /* what our pins set, verify.c */
    case DTLS_VERIFY_KEY_TOO_LARGE: return "KEY_TOO_LARGE";
    default: return "CERTIFICATE_NOT_VALID";
  }
}

void dtls_error_add_seen(lua_State *L, int alert, int number) {
  int err = lua_gettop(L);
  lua_getfield(L, err, "message");
  lua_pushstring(L, alert >= 0 ? "; unauthenticated, and therefore not believed, came the alert " : "; the system said ");
  if (alert >= 0) push_alert_name(L, alert); else lua_pushstring(L, errno_name(number));
  lua_pushvalue(L, -1);
  lua_setfield(L, err, alert >= 0 ? "alert" : "reason");
  lua_concat(L, 3);
  lua_setfield(L, err, "message");
}

int dtls_error_certificate(lua_State *L, long verify_result, const char *detail) {
  const char *text = X509_verify_cert_error_string(verify_result);
  if (verify_result == X509_V_ERR_APPLICATION_VERIFICATION) text = "fingerprint mismatch";
  if (verify_result == DTLS_VERIFY_KEY_TOO_LARGE) text = "a key of its chain is larger than 8192 bits, or has an RSA exponent of more than 32";
  dtls_error(L, "ERR_DTLS_CERTIFICATE", "the peer's certificate was refused: %s%s%s", text, detail ? ": " : "", detail ? detail : "");
  lua_pushstring(L, dtls_error_verify_name(verify_result));
  lua_setfield(L, -2, "reason");
  return 2;
}

/* OpenSSL's SSL_R_… without its prefix: "no shared cipher" is NO_SHARED_CIPHER. */
static void push_reason(lua_State *L, const char *text) {
  char name[128];
  snprintf(name, sizeof name, "%s", text);
  for (char *p = name; *p; p++) *p = (char)(isalnum((unsigned char)*p) ? toupper((unsigned char)*p) : '_');
  lua_pushstring(L, name);
}

/* The first entry is where it went wrong; later ones are callers that gave up. */
int dtls_error_openssl(lua_State *L, const char *code, const char *what) {
  unsigned long entry = ERR_get_error();
  ERR_clear_error();
  if (entry == 0) return dtls_error(L, code, "%s", what);
  int reason = ERR_GET_REASON(entry);
  if (reason == ERR_R_MALLOC_FAILURE) return dtls_error_system(L, ENOMEM, what);
  if (ERR_GET_LIB(entry) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
    return dtls_error_alert(L, reason - SSL_AD_REASON_OFFSET);
  char buffer[128];
  const char *text = ERR_reason_error_string(entry);
  if (!text) {
    ERR_error_string_n(entry, buffer, sizeof buffer);
    text = buffer;
  }
  dtls_error(L, code, "%s: %s", what, text);
  if (ERR_GET_LIB(entry) != ERR_LIB_SSL) return 2;
  if (ERR_GET_REASON(entry) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
    lua_pushliteral(L, "NO_PEER_CERTIFICATE"); /* as authorized() says */
  else
    push_reason(L, text);
  lua_setfield(L, -2, "reason");
  return 2;
}

int dtls_fork_error(lua_State *L) {
  return dtls_error(L, "ERR_DTLS_FORKED", "the association belongs to the parent process: after fork() both would use the same nonces");
}
