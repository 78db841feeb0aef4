--- The way to a server: name → addresses → the first one that answers, all within the deadline of the handshake.

local uv = require 'dtls.uv'
local core = require 'dtls.core'
local socket = require 'dtls.socket'

local new_error = core.error

---@class dtls.Addresses
---@field private _addresses {ip: string, port: integer, rounds: integer, outcome: string?}[] those to try, in turn
---@field private _tried table[] all that were, in the order of their first turns
---@field private _address table? the one that is tried; nil: the caller's handle has its peer already
local Addresses = {}
Addresses.__index = Addresses

local addresses = {}

--- The addresses of a client's server.
---@param options {host: string?, port: integer?, family: integer?, localAddress: string?}
---@param family 'host'|'inet'|'inet6'|nil what the host is
---@param open fun(address: table?): boolean?, dtls.Error? makes a socket and an association for an address, and attaches them
---@return dtls.Addresses
function addresses.new(options, family, open)
  return setmetatable({ _options = options, _family = family, _open = open, _addresses = {}, _tried = {} }, Addresses)
end

--- Whose addresses they are.
---@param conn dtls.Connection
function Addresses:of(conn) self._conn = conn end

-- How often the first flight is repeated to an address before the next one is tried; once more in each later round, which
-- doubles the time as the waits double. OpenSSL gives up after 12.
local REPETITIONS, REPETITIONS_MAX = 2, 8

-- The last address has all the time there is; the others of this round get equal parts of it.
function Addresses:_share(address)
  local conn = self._conn
  conn:_limitAddress()
  if not self._addresses[1] then return end
  local sharing = 1
  for _, other in ipairs(self._addresses) do
    if other.rounds < address.rounds then sharing = sharing + 1 end
  end
  local _, left = conn:_timeLeft()
  conn:_limitAddress(left / sharing, function() return self:_leave() end)
end

-- Tries the next address.
function Addresses:_try()
  local conn, address = self._conn, table.remove(self._addresses, 1)
  self._address = address
  if address then
    if address.rounds == 0 then table.insert(self._tried, address) end
    address.rounds, address.outcome = address.rounds + 1, nil
    self:_share(address)
  end
  local ok, err = self._open(address)
  if conn:_is 'closed' or self._address ~= address then return end
  if not ok then return conn:_fail(err) end
  conn:_serve()
end

-- Leaves an address that is silent; its turn comes again when all others have had theirs. One that ICMP says is refused is
-- left at once in the first round. Anybody can forge that, so later it counts as it does for a single address.
function Addresses:_leave()
  local conn, address = self._conn, self._address
  local answered, repetitions, err = conn:_core():answered()
  if answered then
    conn:_limitAddress()
    return false
  end
  local refused = err and address.rounds == 1
  local patience = math.min(REPETITIONS + address.rounds - 1, REPETITIONS_MAX)
  local time, left = conn:_timeLeft()
  if not refused and repetitions < patience and time > 0 or left <= 0 then return false end
  address.outcome = err and err.code or 'no answer'
  table.insert(self._addresses, address)
  conn:_letGo()
  self:_try()
  return true
end

-- Names the addresses that were tried.
function Addresses:_explained(err)
  if not self._tried[2] then return err end
  local shown = {}
  for i, address in ipairs(self._tried) do
    shown[i] = address.outcome and ('%s (%s)'):format(address.ip, address.outcome) or address.ip
  end
  err.message = ('%s; tried %s'):format(err.message, table.concat(shown, ', '))
  return err
end

--- What the system says of one address is no reason not to try the next, unless that address has begun to answer. It is
--- not tried again.
---@return boolean goesOn another address is tried
---@return dtls.Error err which names the addresses that were tried
function Addresses:retry(err)
  local conn, address = self._conn, self._address
  local is_system = err.code == 'ERR_DTLS_SYSTEM' or not err.code:find '^ERR_DTLS_'
  local association = conn:_core()
  local answered = association and association:answered()
  if not address or not is_system or answered then return false, self:_explained(err) end
  address.outcome = err.code
  if not self._addresses[1] then return false, self:_explained(err) end
  conn:_letGo()
  self:_try()
  return true
end

-- luv gives the resolver's errors by their names alone.
local lookup_failures = {
  EAI_NONAME = 'there is no such name', EAI_NODATA = 'it has no address', EAI_ADDRFAMILY = 'it has no address of that family',
  EAI_AGAIN = 'the resolver has no answer for now', EAI_FAIL = 'the resolver has failed', EAI_MEMORY = 'the resolver has no memory',
}

--- Begins: looks the name up, if the host is one, and tries the first address.
function Addresses:start()
  local conn, options = self._conn, self._options
  local host = options.host
  if conn:_is 'closed' then return end
  if not host then return self:_try() end
  if self._family ~= 'host' then
    self._addresses[1] = { ip = host, port = options.port, rounds = 0 }
    return self:_try()
  end
  local function resolved(failed, found)
    if conn:_is 'closed' then return end
    if failed or #found == 0 then
      local why = lookup_failures[failed] or failed or 'it has no address'
      return conn:_fail(socket.failure('cannot resolve ' .. host, why, failed and failed:match '^EAI_%u+'))
    end
    for _, each in ipairs(found) do
      -- The resolver gives no interface with a link-local address (RFC 4007 §6), and without one it leads nowhere.
      if not each.addr:lower():find '^fe[89ab]%x:' then
        table.insert(self._addresses, { ip = each.addr, port = options.port, rounds = 0 })
      end
    end
    if not self._addresses[1] then
      return conn:_fail(new_error('EADDRNOTAVAIL', ('%s has link-local addresses alone: give one with its interface'):format(host)))
    end
    self:_try()
  end
  local family = options.family and (options.family == 6 and 'inet6' or 'inet')
    or options.localAddress and (socket.isV6(options.localAddress) and 'inet6' or 'inet') or nil
  local request, message, name = uv.getaddrinfo(host, nil, { socktype = 'dgram', family = family }, resolved)
  if not request then conn:_fail(socket.failure('cannot resolve ' .. host, message, name)) end
end

return addresses
