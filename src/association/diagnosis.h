/* Why an association ended: what a failure of libssl means, in the words of those who read it. */
#ifndef DTLS_ASSOCIATION_DIAGNOSIS_H
#define DTLS_ASSOCIATION_DIAGNOSIS_H

#include <stdbool.h>

#include "association/types.h"
#include "base/failure.h"

/* An SSL call has failed for good. error: of SSL_get_error. number: errno after the call. Returns false. */
bool dtls_diagnose(const dtls_association *a, int error, int number, const char *what, dtls_failure *f);
/* DTLSv1_handle_timeout has failed; false */
bool dtls_diagnose_timer(const dtls_association *a, int number, dtls_failure *f);
/* The handshake has not completed in time. What came and was not believed is the best guess there is. */
void dtls_diagnose_timeout(const dtls_association *a, const char *what, dtls_failure *f);

#endif
