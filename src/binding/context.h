/* Contexts as Lua objects. */
#ifndef DTLS_BINDING_CONTEXT_H
#define DTLS_BINDING_CONTEXT_H

/* Until contexts have a file of their own here. */
#include "identity/certificate.h"
#include "identity/context.h"
#include "identity/extension.h"
#include "identity/psk.h"
#include "identity/session.h"
#include "identity/settings.h"
#include "identity/verify.h"

#endif
