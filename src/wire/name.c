/*
 * What a peer may be called: a host name (RFC 1123 §2.1, and '_', which is in use) or an IP address. Texts come with
 * their length, from applications and from the network. A name that has passed has no NUL and may become a C string.
 */
#include "wire/name.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <string.h>

enum { LABEL_MAX = 63 }; /* RFC 1035 §2.3.4 */

static const char NOT_HOST[] =
    "this is neither an IP address nor a host name: labels of 1 to 63 letters, digits, '-' and '_', 253 bytes in all";

static bool is_ascii(const char *text, size_t size) {
  for (size_t i = 0; i < size; i++)
    if ((unsigned char)text[i] > 127) return false;
  return true;
}

/* Not <ctype.h>'s, whose letters are the locale's. */
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static char lower(char c) { return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); }
static bool is_letter(char c) { return lower(c) >= 'a' && lower(c) <= 'z'; }

static bool has_labels(const char *text, size_t size) {
  size_t length = 0;
  for (size_t i = 0; i < size; i++) {
    bool dot = text[i] == '.';
    if (dot && length == 0) return false;
    if (!dot && !is_letter(text[i]) && !is_digit(text[i]) && text[i] != '-' && text[i] != '_') return false;
    length = dot ? 0 : length + 1;
    if (length > LABEL_MAX) return false;
  }
  return length > 0;
}

/* Resolvers take '127.1', '0x7f.1' and '2130706433' for addresses: no host name ends in a number. */
static bool ends_in_number(const char *name) {
  const char *dot = strrchr(name, '.'), *last = dot ? dot + 1 : name;
  bool hexadecimal = last[0] == '0' && (last[1] == 'x' || last[1] == 'X');
  return hexadecimal ? last[2 + strspn(last + 2, "0123456789abcdefABCDEF")] == '\0'
                     : last[strspn(last, "0123456789")] == '\0';
}

static int family_of(const char *text) {
  struct in6_addr ip;
  return inet_pton(AF_INET, text, &ip) == 1 ? AF_INET : inet_pton(AF_INET6, text, &ip) == 1 ? AF_INET6 : AF_UNSPEC;
}

/* The name of an interface, which the socket functions would silently ignore when there is none of it. */
static bool is_zone(const char *text, size_t size) {
  char zone[IF_NAMESIZE];
  if (size == 0 || size >= sizeof zone) return false;
  memcpy(zone, text, size);
  zone[size] = '\0';
  return if_nametoindex(zone) != 0;
}

static void set(dtls_name *out, const char *text, size_t size) {
  memcpy(out->text, text, size);
  out->text[size] = '\0';
  out->size = size;
}

static const char *parse_host_untrusted(const char *text, size_t size, dtls_name *out) {
  /* RFC 6066 §3, RFC 9525 §6.3: neither SNI nor certificates have that dot */
  bool rooted = size > 0 && text[size - 1] == '.';
  if (rooted) size--;
  if (size > DTLS_NAME_MAX || !has_labels(text, size)) return NOT_HOST;
  set(out, text, size);
  return ends_in_number(out->text)
             ? "an IPv4 address has four decimal numbers up to 255, without zeros in front or a dot behind"
             : NULL;
}

const char *dtls_name_parse_untrusted(const char *text, size_t size, dtls_name *out) {
  *out = (dtls_name){.family = AF_UNSPEC};
  if (size == 0) return NOT_HOST;
  if (memchr(text, '\0', size)) return "there is a NUL in this name";
  if (!is_ascii(text, size))
    return "a name with other letters than ASCII's is asked for by its A-label, xn--… (RFC 5890)";
  const char *zone = memchr(text, '%', size);
  size_t length = zone ? (size_t)(zone - text) : size;
  if (length <= DTLS_NAME_MAX) set(out, text, length);
  out->family = family_of(out->text);
  if (!zone) return out->family == AF_UNSPEC ? parse_host_untrusted(text, size, out) : NULL;
  if (out->family != AF_INET6) return "only an IPv6 address has a zone, the part from '%' on";
  return is_zone(zone + 1, size - length - 1) ? NULL : "there is no interface of the name behind '%'";
}

bool dtls_name_of_client_untrusted(const char *text, size_t size, dtls_name *out) {
  /* zones are the host's own */
  bool good = !memchr(text, '%', size) && dtls_name_parse_untrusted(text, size, out) == NULL;
  if (!good || out->family != AF_UNSPEC) *out = (dtls_name){.family = AF_UNSPEC};
  for (size_t i = 0; i < out->size; i++) out->text[i] = lower(out->text[i]);
  return good;
}
