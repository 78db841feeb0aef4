/* The methods of an association for its MTU. */
#ifndef DTLS_BINDING_MTU_H
#define DTLS_BINDING_MTU_H

#include "binding/lua.h"

extern const luaL_Reg dtls_association_mtu[];

#endif
