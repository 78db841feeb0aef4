--- How much memory the C side of this process has in use.

local ffi = require 'ffi'

-- A second definition, after busted has unloaded this module, would raise.
pcall(ffi.cdef, [[
  struct spec_mallinfo2 { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
  struct spec_mallinfo2 mallinfo2(void);
  void *malloc(size_t size);
  void free(void *pointer);
]])

local memory = {}

--- Bytes that malloc has given out, once all that Lua no longer needs is collected.
function memory.used()
  collectgarbage()
  collectgarbage()
  local info = ffi.C.mallinfo2()
  return tonumber(info.uordblks) + tonumber(info.hblkhd)
end

--- Whether that can be trusted: valgrind and the sanitizers have a malloc of their own, and old C libraries no mallinfo2.
function memory.known()
  if not pcall(function() return ffi.C.mallinfo2 end) then return false end
  local before, size = memory.used(), 1000000
  local block = ffi.C.malloc(size)
  local more = memory.used() - before
  ffi.C.free(block)
  return more >= size
end

return memory
