/* luv handles, addresses and sockets for Lua. */
#ifndef DTLS_BINDING_SOCKET_H
#define DTLS_BINDING_SOCKET_H

#include "binding/lua.h"
#include "net/address.h"
#include "net/socket.h"

void dtls_address_push(lua_State *L, const dtls_address *address);      /* {ip=, port=, family=} */
void dtls_address_push_host(lua_State *L, const dtls_address *address); /* bytes that say whose it is */

int dtls_udp_fd_lua(lua_State *L);                           /* core.fd(handle) */
int dtls_udp_socket_lua(lua_State *L);                       /* core.configure_socket(fd, options) */
dtls_buffers dtls_udp_take_buffers(lua_State *L, int index); /* receive_buffer and send_buffer of the table there */
/* Sets recvBufferSize and sendBufferSize of the table on top. */
void dtls_udp_push_buffers(lua_State *L, dtls_buffers given);

#endif
