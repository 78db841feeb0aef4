--- A server to be flooded, in a process of its own: demux, and its options in Lua. Echoes. Answers each number on its input
--- with its counters and what it costs: memory in KB, descriptors, turns of the loop.

local ffi = require 'ffi'
local uv = require 'luv'
local dtls = require 'dtls'

ffi.cdef 'int malloc_trim(size_t pad);'

local identity = assert(dtls.selfSigned())
local options = assert(loadstring('return ' .. arg[2]))()
options.demux, options.cert, options.key = arg[1], identity.cert, identity.key
local server = assert(dtls.createServer(options))
server:on('connection', function(conn)
  conn:on('message', function(data) conn:send(data) end)
end)
assert(server:listen(0, '0.0.0.0'))

-- The most that one turn of the loop has seen.
local turns, datagrams, handshakes, before = 0, 0, 0, 0
local watch = uv.new_prepare()
watch:start(function()
  local stats = server:stats()
  turns = turns + 1
  datagrams, before = math.max(datagrams, stats.datagramsIn - before), stats.datagramsIn
  handshakes = math.max(handshakes, stats.handshaking)
end)

-- Opened while there are descriptors.
local proc = assert(io.open '/proc/self/status')

local function status(name)
  proc:seek 'set'
  return tonumber(proc:read('*a'):match(name .. ':%s*(%d+)'))
end

-- 0: there was none left to look with.
local function descriptors()
  local count, scan = 0, uv.fs_scandir '/proc/self/fd'
  while scan and uv.fs_scandir_next(scan) do count = count + 1 end
  return count
end

local function report(number)
  collectgarbage()
  collectgarbage() -- what the first one has finalised
  ffi.C.malloc_trim(0) -- what is free is no memory that is kept
  local facts = server:stats()
  local usage = uv.getrusage()
  for reason, count in pairs(facts.drops) do facts['drops.' .. reason] = count end
  facts.drops = nil
  facts.rss, facts.peak, facts.descriptors = status 'VmRSS', status 'VmHWM', descriptors()
  facts.cpu = (usage.utime.sec + usage.stime.sec) * 1000 + (usage.utime.usec + usage.stime.usec) / 1000
  facts.hosts, facts.unclosed, facts.turns = select(3, server._admission:counts()), server._unclosed, turns
  facts.mostDatagrams, facts.mostHandshakes = datagrams, handshakes
  datagrams, handshakes = 0, 0
  local words = {}
  for name, value in pairs(facts) do words[#words + 1] = ('%s=%d'):format(name, value) end
  print('report', number, table.concat(words, ' '))
end

io.stdout:setvbuf 'line'
print('listening', server:address().port, identity.fingerprint)
local input = uv.new_pipe(false)
input:open(0)
input:read_start(function(_, data)
  if not data then return uv.stop() end
  for number in data:gmatch '%d+' do report(number) end
end)
uv.run()
