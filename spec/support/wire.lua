--- Numbers, vectors and records as they are on the wire (RFC 5246 §4, RFC 6347 §4.1).

local wire = {}

--- So many bytes, the most significant one first.
function wire.number(value, bytes)
  local out = {}
  for i = bytes, 1, -1 do
    out[i] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(out)
end

--- Content behind its length, which takes so many bytes.
function wire.vector(bytes, content)
  return wire.number(#content, bytes) .. content
end

--- The number in so many bytes from `at` on.
function wire.read(data, at, bytes)
  local value = 0
  for i = at, at + bytes - 1 do value = value * 256 + data:byte(i) end
  return value
end

--- The records of a datagram, the last of which may be cut short.
---@param data string
---@return {type: integer, version: string, epoch: integer, sequence: integer, body: string, whole: string}[]
function wire.records(data)
  local list, at = {}, 1
  while at + 12 <= #data do
    local length = wire.read(data, at + 11, 2)
    list[#list + 1] = {
      type = data:byte(at), version = data:sub(at + 1, at + 2), epoch = wire.read(data, at + 3, 2), sequence = wire.read(data, at + 5, 6),
      body = data:sub(at + 13, at + 12 + length), whole = data:sub(at, at + 12 + length),
    }
    at = at + 13 + length
  end
  return list
end

--- A record without protection.
---@param type integer content type
---@param epoch integer
---@param sequence integer
---@param body string
---@param version string? '\254\253'
function wire.record(type, epoch, sequence, body, version)
  return string.char(type) .. (version or '\254\253') .. wire.number(epoch, 2) .. wire.number(sequence, 6) .. wire.vector(2, body)
end

--- A fragment of a handshake message (RFC 6347 §4.2.2), the body of a record of content type 22.
---@param type integer of the message
---@param sequence integer message_seq
---@param length integer of the whole message
---@param offset integer
---@param body string
function wire.fragment(type, sequence, length, offset, body)
  local number = wire.number
  return number(type, 1) .. number(length, 3) .. number(sequence, 2) .. number(offset, 3) .. number(#body, 3) .. body
end

return wire
