local interop = require 'spec.support.interop'
local loop = require 'spec.support.loop'
local process = require 'spec.support.process'

local CLIENTS = loop.scaled(2000)
local DEADLINE = 30000

-- A luajit with as many descriptors as this user may have.
local function luajit(under, ...)
  return process.spawn('sh', { process.checked('ulimit -n "$(ulimit -Hn)";', under, 'luajit', ...) })
end

local function clients(port, fingerprint)
  local child = luajit('', 'spec/storm/clients.lua', port, fingerprint, tostring(CLIENTS))
  local outcome = child:expect('(%a+)\t[^\n]*\n', DEADLINE)
  assert.equal('all', outcome, child.output.stdout)
  return child
end

describe('a server with thousands of clients', function()
  for _, demux in ipairs { 'connected', 'shared' } do
    it(('takes in as many new ones at once when all of them were killed (%s sockets)'):format(demux), interop.run(function()
      local server = luajit(process.UNDER, 'spec/storm/server.lua', demux)
      local port, fingerprint = server:expect 'listening\t(%d+)\t(%S+)\n'
      clients(port, fingerprint):kill() -- without a word to the server
      local second = clients(port, fingerprint)
      server:write 'stats\n'
      local connections, _, handshaking = server:expect 'stats\t(%d+)\t(%d+)\t(%d+)\n'
      assert.equal(2 * CLIENTS, tonumber(connections))
      assert.equal(0, tonumber(handshaking))
      second:kill()
      server:finish()
      assert.equal(0, server:wait(), server.output.stderr)
    end))
  end
end)
