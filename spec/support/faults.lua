--- A process whose system calls, memory and clock fail when it says so: spec/faults/faults.c, seen from Lua.

local faults = {}

local build = os.getenv 'DTLS_BUILD' or 'build'

--- Runs `body(...)` in a process of its own in which such things can fail. It sees no upvalues. What it raises is
--- raised here; what it prints is returned.
---@param body function
---@param ... string|number|boolean|nil
---@return string
function faults.child(body, ...)
  return faults.childWith(nil, body, ...)
end

--- The same, with more in its environment.
---@param variables table<string, string>?
function faults.childWith(variables, body, ...)
  local arguments = {}
  for i = 1, select('#', ...) do
    local value = select(i, ...)
    arguments[i] = type(value) == 'string' and ('%q'):format(value) or tostring(value)
  end
  local stdout, stderr, status = require('spec.support.child').run(
    ('assert(loadstring(%q))(%s)'):format(string.dump(body), table.concat(arguments, ', ')), build .. '/faults/faults.so', variables)
  if status ~= 0 or stderr ~= '' then error(('status %d\n%s%s'):format(status, stdout, stderr), 2) end
  return stdout
end

--- The numbers of the errors that system calls are made to fail with.
faults.errors = {
  EPERM = 1, EINTR = 4, EIO = 5, EAGAIN = 11, ENOMEM = 12, EACCES = 13, ENODEV = 19, EINVAL = 22, ENFILE = 23, EMFILE = 24, EMSGSIZE = 90,
  EADDRINUSE = 98, EADDRNOTAVAIL = 99, ENETDOWN = 100, ENETUNREACH = 101, ENOBUFS = 105, ECONNREFUSED = 111, EHOSTUNREACH = 113,
}

-- ── inside of such a process ──

--- The functions of the library.
function faults.library()
  local ffi = require 'ffi'
  ffi.cdef [[
    void faults_set(const char *name, unsigned long first, unsigned long count, int error);
    unsigned long faults_calls(const char *name);
    void faults_jump(double seconds);
    void faults_pass(double seconds);
    void faults_drag(double seconds);
    bool faults_own_memory(void);
    void faults_within(const char *function);
    long faults_blocks(void);
    const char *faults_leftover(void);
    const char *faults_where(void);
    int getrlimit(int resource, unsigned long limits[2]);
    int setrlimit(int resource, const unsigned long limits[2]);
  ]]
  return ffi.C
end

--- Makes `count` calls of a kind fail, beginning with the first-th from now on: 'send', 'receive', 'socket', 'bind',
--- 'connect', 'getsockopt', 'setsockopt', 'memory'. None without `count`; they are counted from here on in any case.
---@param code string?
function faults.set(kind, first, count, code)
  faults.C.faults_set(kind, first or 0, count or 0, code and assert(faults.errors[code], code) or 0)
end

--- How many calls of a kind there were since `set`; 'turn' are those of the event loop.
function faults.calls(kind)
  return tonumber(faults.C.faults_calls(kind))
end

--- Lets this process have so many descriptors.
function faults.limitDescriptors(count)
  local RLIMIT_NOFILE = 7
  local limits = require('ffi').new 'unsigned long[2]'
  assert(faults.C.getrlimit(RLIMIT_NOFILE, limits) == 0)
  limits[0] = count
  assert(faults.C.setrlimit(RLIMIT_NOFILE, limits) == 0)
end

return setmetatable(faults, {
  __index = function(self, name)
    if name ~= 'C' then return nil end
    local C = self.library()
    rawset(self, 'C', C)
    return C
  end,
})
