-- Handshake records that nobody has authenticated and that cannot be genuine: none may end a handshake.

local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local proxy = require 'spec.support.proxy'

-- A plaintext record ahead of those that the handshake uses.
local function record(kind, body, number)
  return kind .. '\254\253\0\0' .. (number or '\0\0\0\0\0\9') .. '\0' .. string.char(#body) .. body
end

local function handshake(kind, length, sequence, offset, fragment, body)
  return record('\22', string.char(kind, 0, 0, length, 0, sequence, 0, 0, offset, 0, 0, fragment) .. body)
end

local forged = {
  ['a ChangeCipherSpec of another value'] = record('\20', '\2'),
  ['a ChangeCipherSpec that is too long'] = record('\20', '\1\1'),
  ['an early ChangeCipherSpec'] = record('\20', '\1'),
  ['less than a handshake header'] = record('\22', 'xxx'),
  ['noise'] = record('\22', ('x'):rep(40)),
  ['a message far ahead'] = handshake(14, 0, 200, 0, 0, ''),
  ['a message far ahead, in a record far ahead'] = record('\22', '\14\0\0\0\0\200' .. ('\0'):rep(6), '\0\0\0\0\4\0'),
  ['a message far ahead, in the last record of all'] = record('\22', '\14\0\0\0\0\200' .. ('\0'):rep(6), ('\255'):rep(6)),
  ['a fragment beyond the message\'s end'] = handshake(11, 4, 1, 2, 4, 'abcd'),
  ['a later fragment beyond the message\'s end'] = handshake(11, 200, 2, 190, 40, ('x'):rep(40)),
  ['a message larger than any'] = record('\22', '\11\255\255\255\0\2\0\0\0\0\0\4abcd'),
  ['a HelloRequest'] = handshake(0, 0, 0, 0, 0, ''),
  ['a message of an unknown type'] = handshake(99, 4, 9, 0, 4, 'abcd'),
  ['a Finished in plain text'] = handshake(20, 12, 3, 0, 12, ('x'):rep(12)),
}

describe('a handshake goes on whoever sends', function()
  for name, data in pairs(forged) do
    for _, direction in ipairs { 'server', 'client' } do
      it(('%s in the name of the %s'):format(name, direction), loop.run(function()
        local server = pair.echo(pair.listening())
        local between = proxy.new(server, {
          filter = function(from, _, genuine) return from == direction and { data, genuine, data } or genuine end,
        })
        local conn = pair.open(server, between)
        assert.is_true(pair.roundTrip(conn, 'undisturbed'))
        pair.close(conn, server, between)
      end))
    end
  end
end)
