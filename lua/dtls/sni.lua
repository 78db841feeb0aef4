--- A server's identities by name: `sni` as it was given → what a name gets (RFC 6066 §3, RFC 9525 §6.3).

local core = require 'dtls.core'
local context = require 'dtls.context'
local options = require 'dtls.options'

local sni = {}

-- A name of the map as clients ask for it: a host name in lower case, perhaps behind '*.', or '*'.
local function key_of(name)
  if name == '*' then return name end
  local wildcard, rest = name:match '^(%*%.)(.*)$'
  local host, family = core.name(rest or name)
  if host and family == 'host' then return (wildcard or '') .. host:lower() end
  return nil, host and 'clients ask for no IP addresses (RFC 6066)' or family.message
end

--- Makes the contexts of a map.
---@param given table<string, dtls.Context|table> 'host', '*.domain' (one label) and '*' (any name)
---@return table<string, dtls.Context>? names in lower case
---@return dtls.Error? err ERR_DTLS_CONFIG
function sni.compile(given)
  local names = {}
  for name, value in pairs(given) do
    if type(name) ~= 'string' then error('createServer: sni: expected names, got a ' .. type(name), 3) end
    if type(value) ~= 'table' then
      error(("createServer: sni: '%s': expected a Context or options, got %s"):format(name, type(value)), 3)
    end
    local lower, wrong = key_of(name)
    if not lower then
      local shown = name:find '[%z\1-\31\127]' and '' or ("'%s': "):format(name)
      return options.failure(('sni: %s%s'):format(shown, wrong))
    end
    if names[lower] then return options.failure(("sni: '%s' is there twice; case does not count"):format(lower)) end
    local made, err = context.coerce(("createServer: sni: '%s': "):format(name), 'server', value, 4)
    if not made then return options.failure(("sni: '%s': %s"):format(name, err.message)) end
    names[lower] = made
  end
  return names
end

--- The context of a name; false: there is none.
function sni.find(names, name)
  return names[name] or names[(name:gsub('^[^.]+', '*', 1))] or names['*'] or false
end

return sni
