/* A bounded queue of datagrams or records that wait for their turn. Owns copies of them. */
#ifndef DTLS_ASSOCIATION_QUEUE_H
#define DTLS_ASSOCIATION_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dtls_queued {
  struct dtls_queued *older, *newer;
  size_t size;
  uint8_t data[];
} dtls_queued;

typedef struct {
  dtls_queued *oldest, *newest;
  size_t count, bytes;
} dtls_queue;

typedef struct {
  size_t count, bytes;
} dtls_queue_limit;

bool dtls_queue_has_room(const dtls_queue *q, dtls_queue_limit limit, size_t size);
/* Adds a copy as the newest. head: what its owner wants to know of it, in front of the data; may be NULL. False: no room or memory. */
bool dtls_queue_add(dtls_queue *q, dtls_queue_limit limit, const void *head, size_t head_size, const uint8_t *data,
                    size_t size);
/* before all others */
bool dtls_queue_add_oldest(dtls_queue *q, dtls_queue_limit limit, const uint8_t *data, size_t size);
void dtls_queue_take(dtls_queue *q, dtls_queued *entry); /* off the queue; the caller frees it with dtls_queued_free */
void dtls_queued_free(dtls_queued *entry);
void dtls_queue_remove(dtls_queue *q, dtls_queued *entry); /* off the queue, and freed */
void dtls_queue_clear(dtls_queue *q);

#endif
