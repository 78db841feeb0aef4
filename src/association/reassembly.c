/*
 * The records of a handshake on their way into libssl. Nobody has authenticated its plaintext messages. libssl ends
 * a handshake at the first message that it does not expect, even one that was sent long before its turn, and lets
 * whoever sends decide how much memory it sets aside for those to come: 16 KB and more for each message or protected
 * record. So libssl gets one record at a time, with the message that it reads next, of a type that may come next; Finished
 * when it has read ChangeCipherSpec, and other protected records when the handshake is complete. What came before its turn
 * waits here, within limits.
 */
#include "association/reassembly.h"

#include <string.h>

#include "association/association.h"
#include "association/callbacks.h"
#include "association/endpoint.h"
#include "association/queue.h"
#include "association/record_filter.h"
#include "identity/psk.h"

enum {
  HELLOS_MAX = 3, /* of a client. A server whose cookies have changed meanwhile asks twice (RFC 6347 §4.2.1) */
  AHEAD_MAX = 8   /* messages before its turn; a flight has at most seven */
};

/* Records. */
static const dtls_queue_limit WAITING_MAX = {.count = 32, .bytes = (size_t)32 * 1024};

struct dtls_reassembly {
  uint8_t *rest; /* of the datagram that is being read */
  size_t at, size;
  /* the record filter has looked at all before this, and need not again for every message of a record */
  size_t sound;
  dtls_queue queue; /* records before their turn: plaintext with one fragment, or protected */
};

/* ── life ── */

static bool is_plaintext(const uint8_t *record) { return dtls_record_epoch(record) == 0; }
static bool is_handshake(const uint8_t *record) { return record[0] == SSL3_RT_HANDSHAKE; }

static void forget_waiting(dtls_reassembly *r, bool (*which)(const uint8_t *record)) {
  for (dtls_queued *entry = r->queue.oldest, *next; entry; entry = next) {
    next = entry->newer;
    if (which(entry->data)) dtls_queue_remove(&r->queue, entry);
  }
}

void dtls_reassembly_free(dtls_association *a) {
  dtls_reassembly *r = a->reassembly;
  if (!r) return;
  a->reassembly = NULL;
  dtls_queue_clear(&r->queue);
  OPENSSL_free(r->rest);
  OPENSSL_free(r);
}

/*
 * A handshake message that libssl writes for the first time. Before a flight is sent, a plaintext reply to it can only be
 * forged: such records are forgotten. A message that libssl repeats says nothing: part of the reply may have come. What is
 * behind the type of a message that was cut into fragments is not to be relied on: libssl writes their headers over it.
 */
static void on_written(dtls_association *a, const uint8_t *message) {
  if (a->handshake.repeating) return;
  if (a->reassembly) forget_waiting(a->reassembly, is_plaintext);
  a->handshake.last.type = message[0];
  a->handshake.last.written = true;
  if (message[0] == SSL3_MT_CERTIFICATE_REQUEST) a->handshake.wants_certificate = true;
}

/* What libssl writes now is an answer to the message, even where it has repeated the flight before between header and body. */
static void on_read(dtls_association *a, const uint8_t *message) {
  a->handshake.repeating = false;
  a->handshake.next_seq = (uint16_t)(dtls_u16(message + 4) + 1);
  a->handshake.last.type = message[0];
  a->handshake.last.written = false;
}

/*
 * libssl shows a ChangeCipherSpec before it knows whether the turn has come for it, and drops one that came early: by the
 * time it reads again, a new state has told. The peer's certificate has been read then, or will not come, and libssl need
 * not set aside that much for a message any more.
 */
static void settle_cipher(dtls_association *a) {
  if (!a->handshake.was_shown_cipher) return;
  a->handshake.was_shown_cipher = false;
  if (SSL_get_state(a->ssl) == a->handshake.state_before_cipher) return;
  a->handshake.peer_changed_cipher = true;
  if (SSL_get_max_cert_list(a->ssl) > SSL3_RT_MAX_PLAIN_LENGTH) SSL_set_max_cert_list(a->ssl, SSL3_RT_MAX_PLAIN_LENGTH);
}

/* libssl shows each message as it is read, in order and whole, and as it is written (SSL_set_msg_callback). */
static void on_message(int written, int version, int type, const void *data, size_t size, SSL *ssl, void *argument) {
  (void)version, (void)argument;
  dtls_association *a = dtls_association_of(ssl);
  if (type == SSL3_RT_CHANGE_CIPHER_SPEC && !written) {
    a->handshake.was_shown_cipher = true;
    a->handshake.state_before_cipher = SSL_get_state(ssl);
  }
  if (type == SSL3_RT_ALERT && !written && size == 2) a->alert_read = dtls_u16(data);
  if (type != SSL3_RT_HANDSHAKE || size < DTLS_HANDSHAKE_HEADER) return;
  dtls_footprint_message(a, data);
  if (written) {
    on_written(a, data);
  } else {
    on_read(a, data);
    dtls_psk_identify_untrusted(a->ssl, data, size);
  }
}

void dtls_reassembly_watch(dtls_association *a) { SSL_set_msg_callback(a->ssl, on_message); }

void dtls_reassembly_completed(dtls_association *a) {
  SSL_set_msg_callback(a->ssl, NULL);
  if (a->reassembly) forget_waiting(a->reassembly, is_handshake);
  if (!dtls_reassembly_pending(a)) dtls_reassembly_free(a);
}

static void forget_rest(dtls_reassembly *r) {
  OPENSSL_free(r->rest);
  r->rest = NULL;
}

bool dtls_reassembly_take(dtls_association *a, const uint8_t *data, size_t size) {
  if (!a->reassembly) a->reassembly = OPENSSL_zalloc(sizeof *a->reassembly);
  dtls_reassembly *r = a->reassembly;
  if (!r) return false;
  forget_rest(r);
  r->rest = OPENSSL_malloc(size);
  if (!r->rest) return false;
  memcpy(r->rest, data, size);
  r->at = r->sound = 0;
  r->size = size;
  return true;
}

bool dtls_reassembly_pending(const dtls_association *a) {
  return a->reassembly && (a->reassembly->rest || (a->open && a->reassembly->queue.oldest));
}

size_t dtls_reassembly_rest(dtls_association *a, uint8_t *out, size_t capacity) {
  dtls_reassembly *r = a->reassembly;
  size_t size = 0;
  while (r && r->queue.oldest && size == 0) {
    dtls_queued *oldest = r->queue.oldest;
    if (oldest->size <= capacity) size = oldest->size;
    memcpy(out, oldest->data, size);
    dtls_queue_remove(&r->queue, oldest);
  }
  if (!r || !r->rest || size > 0) return size;
  if (r->size - r->at <= capacity) size = r->size - r->at;
  memcpy(out, r->rest + r->at, size);
  forget_rest(r);
  return size;
}

/* ── what may come next (RFC 5246 §7.3) ── */

/* What a client reads after a ServerHello, or after a certificate. */
static bool continues_hello(const dtls_association *a, uint8_t type, bool after_certificate) {
  const SSL_CIPHER *cipher = dtls_suite(a->ssl);
  bool psk = dtls_psk_suite(a->ssl);
  if (!cipher) return false;
  if (!after_certificate && SSL_session_reused(a->ssl)) return type == SSL3_MT_NEWSESSION_TICKET;
  if (!after_certificate && !psk) return type == SSL3_MT_CERTIFICATE;
  if (!psk || SSL_CIPHER_get_kx_nid(cipher) != NID_kx_psk) return type == SSL3_MT_SERVER_KEY_EXCHANGE;
  return type == SSL3_MT_SERVER_KEY_EXCHANGE || type == SSL3_MT_SERVER_DONE; /* the hint may be absent */
}

/* A server reads the hello, whose later fragments may be missing, and the reply to ServerHelloDone. */
static bool server_expects(const dtls_association *a, uint8_t type) {
  if (a->handshake.last.written && a->handshake.last.type == DTLS1_MT_HELLO_VERIFY_REQUEST)
    return type == SSL3_MT_CLIENT_HELLO;
  if (a->handshake.last.written && a->handshake.last.type == SSL3_MT_SERVER_DONE)
    return type == (a->handshake.wants_certificate ? SSL3_MT_CERTIFICATE : SSL3_MT_CLIENT_KEY_EXCHANGE);
  if (a->handshake.last.written) return false;
  switch (a->handshake.last.type) {
    case SSL3_MT_CERTIFICATE: return type == SSL3_MT_CLIENT_KEY_EXCHANGE;
    case SSL3_MT_CLIENT_KEY_EXCHANGE:
      return type == SSL3_MT_CERTIFICATE_VERIFY && (SSL_get0_peer_certificate(a->ssl) || SSL_get0_peer_rpk(a->ssl));
    default: return false;
  }
}

static bool client_expects(const dtls_association *a, uint8_t type) {
  if (a->handshake.last.written) {
    if (a->handshake.last.type == SSL3_MT_FINISHED) return type == SSL3_MT_NEWSESSION_TICKET;
    if (a->handshake.last.type != SSL3_MT_CLIENT_HELLO) return false;
    return type == SSL3_MT_SERVER_HELLO ||
           (type == DTLS1_MT_HELLO_VERIFY_REQUEST && a->handshake.next_seq < HELLOS_MAX - 1);
  }
  switch (a->handshake.last.type) {
    case SSL3_MT_SERVER_HELLO: return continues_hello(a, type, false);
    case SSL3_MT_CERTIFICATE: return continues_hello(a, type, true);
    case SSL3_MT_SERVER_KEY_EXCHANGE:
      return type == SSL3_MT_SERVER_DONE || (type == SSL3_MT_CERTIFICATE_REQUEST && !dtls_psk_suite(a->ssl));
    case SSL3_MT_CERTIFICATE_REQUEST: return type == SSL3_MT_SERVER_DONE;
    default: return false;
  }
}

static bool is_expected(const dtls_association *a, uint8_t type) {
  return a->server ? server_expects(a, type) : client_expects(a, type);
}

/* Type and length of a handshake message: its first four bytes. */
static uint32_t message_header(const uint8_t *message) { return (uint32_t)message[0] << 24 | dtls_u24(message + 1); }

/* libssl ends the handshake at a fragment that gives the message another length than the one before. */
static bool fits_untrusted(dtls_association *a, const uint8_t *message) {
  uint32_t header = message_header(message);
  if (dtls_u24(message + 9) == dtls_u24(message + 1)) return true; /* not a fragment: libssl takes it as it is */
  if (a->handshake.first_fragment == 0 || a->handshake.first_fragment_seq != a->handshake.next_seq) {
    a->handshake.first_fragment = header;
    a->handshake.first_fragment_seq = a->handshake.next_seq;
  }
  return a->handshake.first_fragment == header;
}

typedef enum { NEVER, LATER, NOW } turn;

static turn message_turn_untrusted(dtls_association *a, const uint8_t *message) {
  uint16_t ahead = (uint16_t)(dtls_u16(message + 4) - a->handshake.next_seq);
  if (ahead > UINT16_MAX / 2) {
    DTLS_DROP(a, REPLAY);
    return NEVER;
  }
  if (ahead > 0 && ahead <= AHEAD_MAX) return LATER;
  if (ahead == 0 && is_expected(a, message[0]) && fits_untrusted(a, message)) return NOW;
  DTLS_DROP(a, HANDSHAKE);
  return NEVER;
}

static turn turn_untrusted(dtls_association *a, const uint8_t *record) {
  if (is_plaintext(record)) return is_handshake(record) ? message_turn_untrusted(a, record + DTLS_RECORD_HEADER) : NOW;
  return a->handshake.peer_changed_cipher && is_handshake(record) ? NOW : LATER;
}

/* ── what waits ── */

static void keep(dtls_association *a, const uint8_t *record, size_t size) {
  dtls_queue *q = &a->reassembly->queue;
  while (size <= WAITING_MAX.bytes && q->oldest && !dtls_queue_has_room(q, WAITING_MAX, size)) {
    dtls_queue_remove(q, q->oldest);
    DTLS_DROP(a, QUEUE);
  }
  if (!dtls_queue_add(q, WAITING_MAX, NULL, 0, record, size)) DTLS_DROP(a, QUEUE);
}

/* The newest whose turn it is: the older it is, the longer before its turn it was sent, and so the more likely forged. */
static size_t take_waiting(dtls_association *a, uint8_t *out, size_t capacity) {
  dtls_queue *q = &a->reassembly->queue;
  for (dtls_queued *entry = q->newest, *older; entry; entry = older) {
    older = entry->older;
    turn when = turn_untrusted(a, entry->data);
    if (when == LATER) continue;
    size_t size = when == NOW && entry->size <= capacity ? entry->size : 0;
    memcpy(out, entry->data, size);
    dtls_queue_remove(q, entry);
    if (size > 0) return size;
  }
  return 0;
}

/* ── one record after the other ── */

static void set_record_size(uint8_t *record, size_t size) {
  record[11] = (uint8_t)((size - DTLS_RECORD_HEADER) >> 8);
  record[12] = (uint8_t)(size - DTLS_RECORD_HEADER);
}

/* The first message of the handshake record at the front of the rest, as a record of its own; its size. */
static size_t peel_untrusted(dtls_reassembly *r, uint8_t *out) {
  uint8_t *record = r->rest + r->at;
  size_t whole = dtls_record_size(record),
         message = DTLS_HANDSHAKE_HEADER + (size_t)dtls_u24(record + DTLS_RECORD_HEADER + 9);
  size_t size = DTLS_RECORD_HEADER + message;
  memcpy(out, record, size);
  set_record_size(out, size);
  if (size == whole) {
    r->at += whole;
  } else { /* RFC 6347 §4.2.3: a record may have several; what is left gets its header */
    memmove(record + message, record, DTLS_RECORD_HEADER);
    set_record_size(record + message, whole - message);
    r->at += message;
  }
  return size;
}

/* The record of so many bytes at the front of the rest, which is no plaintext handshake record. */
static size_t step_whole(dtls_association *a, uint8_t *out, size_t size, size_t capacity) {
  dtls_reassembly *r = a->reassembly;
  uint8_t *record = r->rest + r->at;
  if (turn_untrusted(a, record) == LATER) {
    keep(a, record, size);
    r->at += size;
    return 0;
  }
  /* libssl has no patience with a ChangeCipherSpec: the messages before it must not come behind it. */
  size_t before = record[0] == SSL3_RT_CHANGE_CIPHER_SPEC ? dtls_reassembly_waiting_untrusted(a, out, capacity) : 0;
  if (before > 0) return before;
  if (dtls_callback_asks(a)) return 0;
  memcpy(out, record, size);
  r->at += size;
  return size;
}

/*
 * What a message says about its peer: that a flight has arrived, or that the peer goes on with this handshake, whose hello
 * it also repeats. A forged message can do no more than keep the MTU, and the repetitions, as they were.
 */
static void heard_untrusted(dtls_association *a, const uint8_t *message, turn when) {
  bool repeats_hello = a->server && message[0] == SSL3_MT_CLIENT_HELLO && dtls_u24(message + 6) == 0;
  if (when != NEVER) a->retransmit.answered = true;
  if (when != NEVER || repeats_hello) a->output.silent = false;
}

/* The next record of the rest, if libssl may read it now. */
static size_t step_untrusted(dtls_association *a, uint8_t *out, size_t capacity) {
  dtls_reassembly *r = a->reassembly;
  uint8_t *record = r->rest + r->at;
  bool good = r->at < r->sound;
  size_t size = good ? dtls_record_size(record) : dtls_filter_record_untrusted(a, record, r->size - r->at, &good);
  if (good && size > capacity) {
    DTLS_DROP(a, LENGTH); /* cut, it would no longer be what the record filter has looked at */
    good = false;
  }
  if (!good) {
    r->at += size;
    return 0;
  }
  if (record[0] != SSL3_RT_HANDSHAKE || dtls_record_epoch(record) != 0) return step_whole(a, out, size, capacity);
  r->sound = r->at + size;
  turn when = turn_untrusted(a, record);
  heard_untrusted(a, record + DTLS_RECORD_HEADER, when);
  if (when == NOW && dtls_callback_untrusted(a, record, r->size - r->at)) {
    r->at = r->size;
    return 0;
  }
  size = peel_untrusted(r, out);
  if (when == LATER) keep(a, out, size);
  return when == NOW ? size : 0;
}

size_t dtls_reassembly_next_untrusted(dtls_association *a, uint8_t *out, size_t capacity) {
  dtls_reassembly *r = a->reassembly;
  size_t size = 0;
  settle_cipher(a);
  while (r && r->rest && size == 0 && !dtls_callback_asks(a)) {
    size = step_untrusted(a, out, capacity);
    if (r->at >= r->size) forget_rest(r);
  }
  return size;
}

size_t dtls_reassembly_waiting_untrusted(dtls_association *a, uint8_t *out, size_t capacity) {
  size_t size = a->reassembly ? take_waiting(a, out, capacity) : 0;
  if (size > 0 && is_plaintext(out) && dtls_callback_untrusted(a, out, size)) return 0;
  return size;
}
