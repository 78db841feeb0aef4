/* Counters as the tables that stats() gives. */
#include "binding/counters.h"

static void set_count(lua_State *L, const char *name, uint64_t value) {
  lua_pushnumber(L, (lua_Number)value);
  lua_setfield(L, -2, name);
}

void dtls_counters_push(lua_State *L, const dtls_counters *counters) {
  static const char *const names[] = {
#define X(id, name) name,
      DTLS_DROP_REASONS(X)
#undef X
  };
  lua_createtable(L, 0, 24);
  set_count(L, "datagramsIn", counters->datagrams_in);
  set_count(L, "datagramsOut", counters->datagrams_out);
  set_count(L, "bytesIn", counters->bytes_in);
  set_count(L, "bytesOut", counters->bytes_out);
  set_count(L, "messagesIn", counters->messages_in);
  set_count(L, "messagesOut", counters->messages_out);
  set_count(L, "retransmits", counters->retransmits);
  lua_createtable(L, 0, 4);
  for (int i = 0; i < DTLS_DROP_COUNT; i++)
    if (counters->drops[i] != 0) set_count(L, names[i], counters->drops[i]);
  lua_setfield(L, -2, "drops");
}
