--- Datagrams that nobody sends who means well.

local hello = require 'spec.support.hello'
local proxy = require 'spec.support.proxy'

local number = hello.number

local hostile = {}

--- The handshake message types that DTLS 1.2 has, and two that it has not.
hostile.types = { 0, 1, 2, 3, 4, 11, 12, 13, 14, 15, 16, 20, 22, 99 }

--- A record.
---@param options {version?: string, epoch?: integer, number?: integer, length?: integer}? number: behind those that a
---   handshake or a short conversation uses; length: what its header says
function hostile.record(kind, body, options)
  options = options or {}
  return string.char(kind) .. (options.version or '\254\253') .. number(options.epoch or 0, 2) .. number(options.number or 70, 6)
    .. number(options.length or #body, 2) .. body
end

--- A plaintext record with one fragment of a handshake message: bytes offset to offset + size of length.
function hostile.message(kind, sequence, length, offset, size)
  offset, size = offset or 0, size or length
  return hostile.record(22, number(kind, 1) .. number(length, 3) .. number(sequence, 2) .. number(offset, 3) .. number(size, 3)
    .. ('x'):rep(size))
end

local record, message = hostile.record, hostile.message

--- That many bytes, the same in every run.
function hostile.noise(seed, size)
  local random, bytes = proxy.random(seed), {}
  for i = 1, size do bytes[i] = string.char(math.floor(random() * 256) % 256) end
  return table.concat(bytes)
end

--- Protected records of every size, the empty one included.
function hostile.undersized(kind, largest)
  local list = {}
  for size = 0, largest do list[#list + 1] = record(kind, ('x'):rep(size), { epoch = 1, number = 1000 + size }) end
  return list
end

local function repeated(list, make, first, last)
  for i = first, last do list[#list + 1] = make(i) end
  return list
end

--- Names → {datagrams; reason = why an open association drops each of them ('any': for several reasons); count = how many
--- it can tell of (all); also = {reason = how many are dropped for another one}; early = the reason during a handshake, if it
--- is another one (false: none)}
function hostile.classes()
  local x = ('x'):rep(60)
  local all = {
    ['nothing'] = { '', '', '', reason = 'empty' },
    ['1 to 12 bytes'] = repeated({ reason = 'short' }, function(i) return ('\22'):rep(i) end, 1, 12),
    ['unknown types'] = repeated({ reason = 'type' }, function(i) return record(i, x, { epoch = i % 2 }) end, 24, 60),
    ['types below the first one'] = repeated({ reason = 'type' }, function(i) return record(i, x, { epoch = i % 2 }) end, 0, 19),
    ['foreign versions'] = {
      record(23, x, { version = '\3\3', epoch = 1 }), record(23, x, { version = '\0\0', epoch = 1 }),
      record(22, x, { version = '\3\1' }), record(21, '\2\40', { version = '\255\253' }), record(20, '\1', { version = '\253\253' }),
      reason = 'version',
    },
    ['versions of the protocol that are not in use'] = {
      record(23, x, { version = '\254\255', epoch = 1 }), record(22, x, { version = '\254\255', epoch = 1 }),
      record(23, x, { version = '\254\252', epoch = 1 }), record(23, x, { version = '\254\0', epoch = 1 }),
      reason = 'version',
    },
    ['records that are shorter than they say'] = repeated({ reason = 'length' }, function(i)
      return record(20 + i % 4, x, { epoch = i % 3, length = 60 + i * i })
    end, 1, 50),
    ['records that say they are empty'] = repeated({ reason = 'length' }, function(i)
      return record(20 + i % 4, x, { epoch = i % 3, length = 0 })
    end, 1, 12),
    ['records that are longer than any'] = {
      record(23, ('x'):rep(18433), { epoch = 1 }), record(22, ('x'):rep(18433)), record(23, ('x'):rep(30000), { epoch = 1 }),
      reason = 'length',
    },
    ['datagrams of 64 KB'] = {
      record(23, ('x'):rep(65494), { epoch = 1 }), ('\23'):rep(65507), reason = 'any',
    },
    ['future epochs'] = repeated({ reason = 'epoch' }, function(i)
      return record(20 + i % 4, x, { epoch = math.min(2 ^ i, 65535) })
    end, 1, 16),
    ['forged records of every type'] = repeated({ reason = 'invalid', count = 10, also = { handshake = 10 } }, function(i)
      return record(20 + i % 4, x, { epoch = 1, number = 500 + i })
    end, 1, 40),
    ['forged records that fill a datagram'] = repeated({ reason = 'invalid', early = 'early' }, function(i)
      return record(23, hostile.noise(i, 1200), { epoch = 1, number = 600 + i })
    end, 1, 20),
    ['forged records of the greatest size'] = repeated({ reason = 'invalid', early = 'early' }, function(i)
      return record(23, hostile.noise(i, 16384 + 24), { epoch = 1, number = 700 + i })
    end, 1, 3),
    ['application data in plain text'] = repeated({ reason = 'unprotected' }, function(i) return record(23, ('d'):rep(i)) end, 1, 30),
    ['alerts in plain text'] = repeated({ reason = 'alert' }, function(i)
      return record(21, string.char(i % 3, math.floor(i / 3)))
    end, 0, 120),
    ['ChangeCipherSpecs'] = { record(20, '\1'), record(20, '\1'), record(20, '\1', { number = 0 }), reason = 'epoch', early = false },
    ['ChangeCipherSpecs that are none'] = { record(20, '\2'), record(20, '\1\1'), record(20, x), reason = 'epoch', early = 'handshake' },
    ['handshake records that lie'] = {
      record(22, 'x'), record(22, ('x'):rep(11)), record(22, ('\0'):rep(12)), record(22, ('\255'):rep(60)), record(22, x),
      message(11, 2, 4, 2, 4), message(11, 2, 200, 190, 40), message(16, 2, 4, 0, 0), message(14, 2, 4), message(16, 2, 2049, 0, 4),
      message(11, 2, 0xffffff, 0, 4), message(11, 2, 0xffffff, 0xfffff0, 4), message(2, 1, 0, 0, 4),
      reason = 'epoch', early = 'handshake',
    },
    ['handshake messages far from their turn'] = repeated({ reason = 'epoch', early = 'handshake' }, function(i)
      return message(i % 2 == 0 and 11 or 12, 20 + i * i, 40 + i, i, 8)
    end, 0, 30),
    ['noise'] = repeated({ reason = 'any' }, function(i) return hostile.noise(i, i * i % 1500) end, 1, 80),
    ['noise behind a good header'] = repeated({ reason = 'any' }, function(i)
      return record(20 + i % 4, hostile.noise(i, 1 + i * 7), { epoch = math.floor(i / 4) % 3, number = 800 + i })
    end, 1, 80),
  }
  return all
end

return hostile
