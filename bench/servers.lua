--- The servers that are measured: what starts each, and what it needs. All take a certificate, a key and a mode of load.c, print
--- their port, and answer each line on their standard input with "CPU seconds, resident bytes".

local uv = require 'luv'
local dtls = require 'dtls'

local PROGRAMS = os.getenv 'PROGRAMS' or 'build/bench'
local NODE_MODULES = (os.getenv 'DTLS_BUILD' or 'build') .. '/peers/node_modules'

local directory = assert(uv.fs_mkdtemp((os.getenv 'TMPDIR' or '/tmp') .. '/dtls-bench-XXXXXX'))
local identity = assert(dtls.selfSigned { commonName = 'bench' })
local files = {}
for _, kind in ipairs { 'cert', 'key' } do
  files[kind] = ('%s/%s.pem'):format(directory, kind)
  local file = assert(io.open(files[kind], 'w'))
  file:write(identity[kind])
  file:close()
end

---@class bench.Server
---@field name string
---@field command? fun(mode: string, port?: string): any[]  with a port: beside others that share it
---@field missing? string  what it needs and is not installed

local function program(name, path, ...)
  local before = { ... }
  table.insert(before, path)
  return { name = name, command = function(mode)
    local all = { unpack(before) }
    for _, each in ipairs { files.cert, files.key, mode } do table.insert(all, each) end
    return all
  end }
end

local servers = { PROGRAMS = PROGRAMS }

servers.reference = program('C reference', PROGRAMS .. '/reference')

for _, demux in ipairs { 'shared', 'connected' } do
  servers[demux] = { name = '`' .. demux .. '`', command = function(mode, port)
    return { 'luajit', 'bench/server.lua', files.cert, files.key, mode, demux, port }
  end }
end

servers.memory_bio = program('memory BIOs in Lua', 'bench/peers/memory_bio.lua', 'luajit')

local function line_of(command)
  local pipe = io.popen(command)
  local line = pipe:read '*l'
  pipe:close()
  return line
end

local pion = PROGRAMS .. '/pion'
if uv.fs_stat(pion) then
  servers.pion = program(('Pion %s (Go)'):format(line_of "dpkg-query -W -f '${Version}' golang-github-pion-dtls.v2-dev"), pion)
else
  servers.pion = { name = 'Pion', missing = 'golang-go and golang-github-pion-dtls.v2-dev, by Debian\'s names' }
end

local werift = NODE_MODULES .. '/werift'
if uv.fs_stat(werift) then
  local version = line_of(([[sed -n 's/^ *"version": "\(.*\)",/\1/p' '%s/package.json']]):format(werift))
  servers.werift = program(('werift %s (Node %s)'):format(version, line_of 'node --version'), 'bench/peers/werift.js', 'node')
else
  servers.werift = { name = 'werift', missing = 'node, and the package from npm' }
end
uv.os_setenv('NODE_PATH', assert(uv.fs_realpath '.') .. '/' .. NODE_MODULES)

--- Removes the certificate and the key.
function servers.clean()
  for _, path in pairs(files) do os.remove(path) end
  uv.fs_rmdir(directory)
end

return servers
