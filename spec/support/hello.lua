--- ClientHellos built by hand, and what servers answer to them (RFC 6347 §4.2, RFC 5246 §7.4.1.2).

local loop = require 'spec.support.loop'
local wire = require 'spec.support.wire'

local hello = {}

local number, vector, read = wire.number, wire.vector, wire.read
hello.number, hello.vector, hello.read, hello.records = number, vector, read, wire.records

--- TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, ..._CHACHA20_POLY1305_SHA256, the renegotiation signal.
hello.suites = '\192\43\204\169\0\255'

-- supported_groups, ec_point_formats, signature_algorithms, extended_master_secret
local extensions = number(10, 2) .. vector(2, vector(2, '\0\29\0\23')) .. number(11, 2) .. vector(2, vector(1, '\0'))
  .. number(13, 2) .. vector(2, vector(2, '\4\3\8\4\4\1')) .. number(23, 2) .. vector(2, '')

--- What a hello has unless it is told otherwise.
hello.extensions = extensions

--- The body of a ClientHello.
---@param options table? version, random, session, cookie, suites, compressions, extensions: bytes
function hello.body(options)
  options = options or {}
  return (options.version or '\254\253') .. (options.random or ('r'):rep(32)) .. vector(1, options.session or '')
    .. vector(1, options.cookie or '') .. vector(2, options.suites or hello.suites)
    .. vector(1, options.compressions or '\0') .. vector(2, options.extensions or extensions)
end

--- One record with one fragment of a handshake message.
---@param options table? type, sequence (of the record), messageSequence, recordVersion, epoch, offset and length (of the
---   fragment; all of the body)
function hello.record(body, options)
  options = options or {}
  local offset = options.offset or 0
  local length = options.length or #body - offset
  local message = wire.fragment(options.type or 1, options.messageSequence or 0, #body, offset, body:sub(offset + 1, offset + length))
  return wire.record(22, options.epoch or 0, options.sequence or 0, message, options.recordVersion or '\254\255')
end

--- A datagram with a whole ClientHello.
---@param options table? what body and record take
function hello.build(options)
  return hello.record(hello.body(options), options)
end

--- The extensions of a ClientHello that is whole in its datagram: type → content.
function hello.readExtensions(datagram)
  local body = wire.records(datagram)[1].body:sub(13)
  local at = 1 + 2 + 32 -- behind version and random
  for _, bytes in ipairs { 1, 1, 2, 1 } do at = at + bytes + read(body, at, bytes) end -- session id, cookie, suites, compressions
  at = at + 2
  local found = {}
  while at < #body do
    local size = read(body, at + 2, 2)
    found[read(body, at, 2)] = body:sub(at + 4, at + 3 + size)
    at = at + 4 + size
  end
  return found
end

--- A HelloVerifyRequest: {sequence=, messageSequence=, recordVersion=, version=, cookie=}, or nil for anything else.
function hello.verifyRequest(data)
  if #data < 28 or data:byte(1) ~= 22 or data:byte(14) ~= 3 then return nil end
  local length = data:byte(28)
  if #data ~= 28 + length then return nil end
  return {
    recordVersion = data:sub(2, 3), sequence = read(data, 6, 6), messageSequence = read(data, 18, 2),
    version = data:sub(26, 27), cookie = data:sub(29),
  }
end

--- Sends a hello from a raw socket, waits for the HelloVerifyRequest; returns its cookie, and all of it.
function hello.cookie(raw, server, options)
  local before = #raw.inbox
  raw:send(hello.build(options), server)
  loop.till(function() return #raw.inbox > before end, 'a HelloVerifyRequest')
  local request = assert(hello.verifyRequest(raw.inbox[#raw.inbox]), 'this is not a HelloVerifyRequest')
  return request.cookie, request
end

--- The whole cookie exchange; the server then has a handshake with the raw socket, which goes no further.
function hello.halfOpen(raw, server, options)
  local all = {}
  for name, value in pairs(options or {}) do all[name] = value end
  all.cookie = hello.cookie(raw, server, options)
  all.sequence, all.messageSequence = (all.sequence or 0) + 1, 1
  local before = #raw.inbox
  raw:send(hello.build(all), server)
  loop.till(function() return #raw.inbox > before end, 'the server\'s flight')
  return all.cookie
end

return hello
