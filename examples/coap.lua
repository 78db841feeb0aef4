-- Messages of CoAP (RFC 7252 §3), for coap_gateway.lua and coap_client.lua.

local coap = {
  CON = 0, NON = 1, ACK = 2, RST = 3,
  EMPTY = 0, GET = 1, PUT = 3, CREATED = 65, CHANGED = 68, CONTENT = 69,
  BAD_OPTION = 130, NOT_FOUND = 132, NOT_ALLOWED = 133, TOO_LARGE = 141, UNAVAILABLE = 163,
  OBSERVE = 6, URI_PATH = 11,
  MOST_BYTES = 1152, -- of a message, when nothing is known of the path (§4.6)
}

local understood = { [3] = true, [7] = true, [coap.URI_PATH] = true, [15] = true } -- Uri-Host, -Port, -Path, -Query

-- A number of any length in network order, without leading zeros: as options have it.
local function bytes(number)
  return number == 0 and '' or bytes(math.floor(number / 256)) .. string.char(number % 256)
end

local function value_untrusted(text)
  local number = 0
  for i = 1, #text do number = number * 256 + text:byte(i) end
  return number
end

-- ── composing ──

-- Message IDs of this program: two bytes, which come again after 65536 messages (§4.4).
local last_id = os.time() % 65536
function coap.next_id()
  last_id = (last_id + 1) % 65536
  return string.char(math.floor(last_id / 256), last_id % 256)
end

-- The four bits of a delta or a length, and the bytes that extend them.
local function short(number)
  if number < 13 then return number, '' end
  if number < 269 then return 13, string.char(number - 13) end
  return 14, string.char(math.floor((number - 269) / 256), (number - 269) % 256)
end

-- message: {kind=, code=, id= (two bytes), token=, path=, observe=, payload=}; the last four may be left out.
function coap.compose(message)
  local token, last = message.token or '', 0
  local parts = { string.char(64 + message.kind * 16 + #token, message.code), message.id, token }
  local function option(number, value)
    local delta, more_delta = short(number - last)
    local length, more_length = short(#value)
    parts[#parts + 1] = string.char(delta * 16 + length) .. more_delta .. more_length .. value
    last = number
  end
  if message.observe then option(coap.OBSERVE, bytes(message.observe)) end
  for segment in (message.path or ''):gmatch '[^/]+' do option(coap.URI_PATH, segment) end
  if message.payload and message.payload ~= '' then parts[#parts + 1] = '\255' .. message.payload end
  return table.concat(parts)
end

-- ── parsing ──

-- The delta or the length of an option, and where the bytes go on that extend its four bits; nil when they are not there.
local function number_untrusted(data, bits, at)
  if bits < 13 then return bits, at end
  if bits == 13 and at <= #data then return 13 + data:byte(at), at + 1 end
  if bits == 14 and at < #data then return 269 + data:byte(at) * 256 + data:byte(at + 1), at + 2 end
end

-- Gives nil for what is no message, and one without a code for what breaks off. `critical` is an option that must be refused.
function coap.parse_untrusted(data)
  local first, code = data:byte(1, 2)
  if #data < 4 or first < 64 or first > 127 then return nil end
  local at, option = 5 + first % 16, 0
  local message = { kind = math.floor(first / 16) % 4, id = data:sub(3, 4), token = data:sub(5, at - 1), path = '' }
  if at > 13 or at > #data + 1 then return message end
  while at <= #data and data:byte(at) ~= 255 do
    local bits, length = data:byte(at), nil
    local delta, after = number_untrusted(data, math.floor(bits / 16), at + 1)
    if delta then length, at = number_untrusted(data, bits % 16, after) end
    if not length or at + length > #data + 1 then return message end
    option = option + delta
    local value = data:sub(at, at + length - 1)
    if option == coap.URI_PATH then message.path = message.path .. '/' .. value end
    if option == coap.OBSERVE and length <= 3 then message.observe = value_untrusted(value) end
    if option % 2 == 1 and not understood[option] then message.critical = option end
    at = at + length
  end
  message.code, message.payload = code, data:sub(at + 1)
  return message
end

-- '2.05'
function coap.describe(code)
  return ('%d.%02d'):format(math.floor(code / 32), code % 32)
end

return coap
