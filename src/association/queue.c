/* A bounded queue of datagrams or records that wait for their turn: a list in both directions, since some leave out of turn. */
#include "association/queue.h"

#include <string.h>

#include <openssl/crypto.h>

bool dtls_queue_has_room(const dtls_queue *q, dtls_queue_limit limit, size_t size) {
  return q->count < limit.count && size <= limit.bytes && q->bytes <= limit.bytes - size;
}

static dtls_queued *copy(dtls_queue *q, dtls_queue_limit limit, const void *head, size_t head_size, const uint8_t *data,
                         size_t size) {
  size_t whole = head_size + size;
  dtls_queued *entry = dtls_queue_has_room(q, limit, whole) ? OPENSSL_malloc(sizeof *entry + whole) : NULL;
  if (!entry) return NULL;
  *entry = (dtls_queued){.size = whole};
  if (head_size > 0) memcpy(entry->data, head, head_size);
  if (size > 0) memcpy(entry->data + head_size, data, size);
  q->count++;
  q->bytes += whole;
  return entry;
}

bool dtls_queue_add(dtls_queue *q, dtls_queue_limit limit, const void *head, size_t head_size, const uint8_t *data,
                    size_t size) {
  dtls_queued *entry = copy(q, limit, head, head_size, data, size);
  if (!entry) return false;
  entry->older = q->newest;
  if (entry->older)
    entry->older->newer = entry;
  else
    q->oldest = entry;
  q->newest = entry;
  return true;
}

bool dtls_queue_add_oldest(dtls_queue *q, dtls_queue_limit limit, const uint8_t *data, size_t size) {
  dtls_queued *entry = copy(q, limit, NULL, 0, data, size);
  if (!entry) return false;
  entry->newer = q->oldest;
  if (entry->newer)
    entry->newer->older = entry;
  else
    q->newest = entry;
  q->oldest = entry;
  return true;
}

void dtls_queue_take(dtls_queue *q, dtls_queued *entry) {
  if (entry->older)
    entry->older->newer = entry->newer;
  else
    q->oldest = entry->newer;
  if (entry->newer)
    entry->newer->older = entry->older;
  else
    q->newest = entry->older;
  q->count--;
  q->bytes -= entry->size;
}

void dtls_queued_free(dtls_queued *entry) { OPENSSL_free(entry); }

void dtls_queue_remove(dtls_queue *q, dtls_queued *entry) {
  dtls_queue_take(q, entry);
  dtls_queued_free(entry);
}

void dtls_queue_clear(dtls_queue *q) {
  while (q->oldest) dtls_queue_remove(q, q->oldest);
}
