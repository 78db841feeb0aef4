/*
 * What record_filter.c, reassembly.c and callbacks.c let through to libssl, on associations at the stages that stages.lua brings them
 * to. The first byte chooses one; then come datagrams, each behind its length (two bytes). Two bits of the first byte
 * ask to mend the lengths within them, or few would get past the record filter, and to filter them as a whole.
 */
#include "fixed.h"

#include <stdlib.h>
#include <string.h>

#include "association/association.h"
#include "association/record_filter.h"

enum { STAGES_MAX = 16, EPOCHS = 2, MEND = 128, WHOLE = 64, MESSAGE_MAX = 0x7fff };

typedef struct {
  dtls_association *a, as_it_was;
} fuzz_stage;

static fuzz_stage stages[STAGES_MAX];
static size_t count;
static lua_State *L;

static void forget(dtls_association *a) {
  dtls_reassembly_free(a);
  dtls_callback_free(a);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  L = fuzz_run("spec/fuzz/stages.lua");
  count = lua_objlen(L, 2);
  FUZZ_CHECK(count > 0 && count <= STAGES_MAX);
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, 2, (int)i + 1);
    stages[i].a = *(dtls_association **)lua_touserdata(L, -1);
    FUZZ_CHECK(stages[i].a != NULL);
    forget(stages[i].a);
    stages[i].as_it_was = *stages[i].a;
    lua_pop(L, 1);
  }
  return 0;
}

static void put(uint8_t *p, unsigned bytes, size_t value) {
  for (unsigned i = 0; i < bytes; i++) p[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static size_t at_most(size_t value, size_t max) { return value < max ? value : max; }

/* The fragments of a record's handshake messages fill it, and lie within their messages. */
static void mend_messages(uint8_t *p, size_t size) {
  while (size >= DTLS_HANDSHAKE_HEADER) {
    size_t length = dtls_u24(p + 1) & MESSAGE_MAX, offset = dtls_u24(p + 6) & (MESSAGE_MAX / 2);
    size_t fragment = at_most(dtls_u24(p + 9), size - DTLS_HANDSHAKE_HEADER);
    if (size - DTLS_HANDSHAKE_HEADER - fragment < DTLS_HANDSHAKE_HEADER) fragment = size - DTLS_HANDSHAKE_HEADER;
    put(p + 1, 3, length < offset + fragment ? offset + fragment : length);
    put(p + 6, 3, offset);
    put(p + 9, 3, fragment);
    p += DTLS_HANDSHAKE_HEADER + fragment;
    size -= DTLS_HANDSHAKE_HEADER + fragment;
  }
}

static void mend(uint8_t *data, size_t size) {
  while (size > DTLS_RECORD_HEADER) {
    size_t body = at_most(dtls_u16(data + 11), at_most(size - DTLS_RECORD_HEADER, DTLS_MESSAGE_MAX));
    put(data + 11, 2, body);
    if (data[0] == SSL3_RT_HANDSHAKE && dtls_record_epoch(data) == 0) mend_messages(data + DTLS_RECORD_HEADER, body);
    data += DTLS_RECORD_HEADER + body;
    size -= DTLS_RECORD_HEADER + body;
  }
}

/* What libssl is shown is whole records that it cannot stumble over. */
static void check_filtered(const dtls_association *a, const uint8_t *data, size_t size) {
  size_t at = 0;
  while (at < size) {
    const uint8_t *record = data + at;
    FUZZ_CHECK(size - at > DTLS_RECORD_HEADER && dtls_record_size(record) <= size - at);
    FUZZ_CHECK(dtls_record_epoch(record) < EPOCHS && record[1] == DTLS1_VERSION_MAJOR);
    if (dtls_record_epoch(record) == 0)
      FUZZ_CHECK(record[0] == SSL3_RT_HANDSHAKE || record[0] == SSL3_RT_CHANGE_CIPHER_SPEC);
    else
      FUZZ_CHECK(dtls_record_size(record) >= DTLS_RECORD_HEADER + dtls_filter_protected_min(a->ssl));
    at += dtls_record_size(record);
  }
  FUZZ_CHECK(at == size);
}

static void answer_psk(size_t stage) {
  lua_rawgeti(L, 2, (int)stage + 1);
  lua_getfield(L, -1, "answer_psk");
  lua_insert(L, -2);
  lua_pushliteral(L, "key");
  lua_pushliteral(L, "identity");
  lua_call(L, 3, 0);
}

static void filter(dtls_association *a, uint8_t *data, size_t size) {
  size_t left = dtls_filter_datagram_untrusted(a, data, size);
  FUZZ_CHECK(left <= size);
  check_filtered(a, data, left);
}

/* During a handshake libssl gets one record at a time, and of plaintext messages the one whose turn it is. */
static void check_record(dtls_association *a, const uint8_t *record, size_t size) {
  const uint8_t *message = record + DTLS_RECORD_HEADER;
  check_filtered(a, record, size);
  FUZZ_CHECK(dtls_record_size(record) == size);
  if (record[0] != SSL3_RT_HANDSHAKE || dtls_record_epoch(record) != 0) return;
  FUZZ_CHECK(size == DTLS_RECORD_HEADER + DTLS_HANDSHAKE_HEADER + (size_t)dtls_u24(message + 9));
  FUZZ_CHECK(dtls_u16(message + 4) == a->handshake.next_seq);
  if (dtls_u24(message + 9) == dtls_u24(message + 1)) a->handshake.next_seq++; /* as if libssl had read it */
}

/* As libssl's reads do, until there is nothing left; questions are answered at once. */
static void read_all(size_t stage) {
  dtls_association *a = stages[stage].a;
  static uint8_t out[DTLS_DATAGRAM_MAX];
  for (;;) {
    size_t size = dtls_reassembly_next_untrusted(a, out, sizeof out);
    if (size == 0 && !dtls_callback_asks(a) && dtls_callback_pending(a)) {
      size = dtls_callback_next(a, out, sizeof out);
      FUZZ_CHECK(size > 0 && dtls_reassembly_take(a, out, size));
      continue;
    }
    if (size == 0 && !dtls_callback_asks(a)) size = dtls_reassembly_waiting_untrusted(a, out, sizeof out);
    if (size > 0)
      check_record(a, out, size);
    else if (dtls_callback_asks(a))
      answer_psk(stage);
    else
      return;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
  if (size < 1) return 0;
  uint8_t flags = *input++;
  size_t stage = (size_t)(flags & ~(MEND | WHOLE)) % count;
  dtls_association *a = stages[stage].a;
  size--;
  fuzz_fix(0);
  while (size >= 2) {
    size_t length = dtls_u16(input);
    input += 2, size -= 2;
    if (length > size) length = size;
    uint8_t *data = malloc(length); /* as large as the datagram: whoever reads or writes past it is seen */
    memcpy(data, input, length);
    if (flags & MEND) mend(data, length);
    if (a->open || flags & WHOLE)
      filter(a, data, length);
    else if (length > 0 && dtls_reassembly_take(a, data, length))
      read_all(stage);
    free(data);
    input += length, size -= length;
  }
  forget(a);
  *a = stages[stage].as_it_was;
  return 0;
}
