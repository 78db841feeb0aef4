-- Records that were sealed outside of libssl are genuine to an association: what the specs of hostile authenticated peers rest on.

local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'
local sealed = require 'spec.support.sealed'
local wire = require 'spec.support.wire'

local KEY = ('k'):rep(32)
local APPLICATION_DATA, ALERT = 23, 21
local FAR = 1000 -- a sequence number that no genuine record of so short an association reaches

local suites = {
  'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-ECDSA-AES128-CCM',
  'ECDHE-ECDSA-AES256-CCM8', 'PSK-AES128-GCM-SHA256', 'PSK-AES256-GCM-SHA384', 'ECDHE-PSK-CHACHA20-POLY1305', 'PSK-AES128-CCM8',
}

-- An open pair behind a proxy; `ends` are its connections by role, `keys` those of the association.
local function open(suite)
  local psk, line = suite:find('PSK', 1, true), nil
  local server = pair.listening { ciphers = suite, psk = psk and { alice = KEY } or nil, keylog = true }
  server:on('keylog', function(logged) line = line or logged end)
  local between = proxy.new(server)
  local conn, accepted = pair.open(server, between, { ciphers = suite, psk = psk and { identity = 'alice', key = KEY } or nil })
  local self = { between = between, ends = { client = conn, server = accepted } }
  self.keys = sealed.keysOf(between, line, conn:getCipher().name)
  self.events = { client = pair.record(conn, 'message', 'error', 'close'), server = pair.record(accepted, 'message', 'error', 'close') }
  function self.close() pair.close(conn, server, between) end
  return self
end

local peer_of = { client = 'server', server = 'client' }

describe('Records sealed outside of libssl', function()
  for _, suite in ipairs(suites) do
    for _, role in ipairs { 'server', 'client' } do
      it(('are delivered to a %s that uses %s'):format(role, suite), loop.run(function()
        local world = open(suite)
        world.between:inject(role, sealed.record(world.keys, peer_of[role], APPLICATION_DATA, 1, FAR, 'sealed'))
        assert.equal('sealed', world.events[role].wait('message')[2])
        world.close()
      end))

      it(('are the same as those that a %s with %s sends'):format(role, suite), loop.run(function()
        local world = open(suite)
        assert(world.ends[role]:send 'genuine')
        world.events[peer_of[role]].wait 'message'
        local datagrams = world.between.recorded[peer_of[role]]
        local record = wire.records(datagrams[#datagrams])[1]
        assert.equal('genuine', sealed.open(world.keys, role, record))
        assert.is_nil(sealed.open(world.keys, peer_of[role], record))
        world.close()
      end))
    end
  end

  it('end an association as a genuine close_notify does', loop.run(function()
    local world = open(suites[1])
    world.between:inject('server', sealed.record(world.keys, 'client', ALERT, 1, FAR, '\1\0'))
    assert.is_false(world.events.server.wait('close')[2])
    world.close()
  end))

  it('are dropped when the keys of the other direction sealed them', loop.run(function()
    local world = open(suites[1])
    world.between:inject('server', sealed.record(world.keys, 'server', APPLICATION_DATA, 1, FAR, 'forged'))
    world.between:inject('server', sealed.record(world.keys, 'client', APPLICATION_DATA, 1, FAR, 'sealed'))
    assert.equal('sealed', world.events.server.wait('message')[2])
    assert.equal(1, world.ends.server:stats().drops.invalid)
    world.close()
  end))
end)
