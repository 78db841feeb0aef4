/* The key log. */
#ifndef DTLS_IDENTITY_KEYLOG_H
#define DTLS_IDENTITY_KEYLOG_H

#include "identity/context.h"

dtls_option_taker dtls_keylog_take;
void dtls_keylog_free(dtls_config *c);

#endif
