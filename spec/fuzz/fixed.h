/* What the fuzz targets share: a world whose randomness and clock are the same in every run. */
#ifndef FUZZ_FIXED_H
#define FUZZ_FIXED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <lauxlib.h>
#include <lua.h>

/* libFuzzer's entry points */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

void fuzz_fix(unsigned seed); /* randomness and clock start anew */
void fuzz_advance(unsigned ms);
size_t fuzz_allocated(void); /* bytes */

/* A Lua state with dtls.core, and `net` for what scripts need of the system; ends the process if the script cannot be
   run. What the script returned is on its stack. Nothing that it keeps counts as a leak. */
lua_State *fuzz_run(const char *script);

#define FUZZ_CHECK(condition) ((condition) ? (void)0 : fuzz_failed(__FILE__, __LINE__, #condition))
_Noreturn void fuzz_failed(const char *file, int line, const char *what);

#endif
