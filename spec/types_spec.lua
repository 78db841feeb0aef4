--- What editors are told (LuaCATS): the classes of the annotations are what the code takes and gives.

local dtls = require 'dtls'
local contents = require 'spec.support.contents'
local keys = require 'spec.support.keys'
local loop = require 'spec.support.loop'
local options = require 'dtls.options'
local pair = require 'spec.support.pair'

local function sources()
  local list = {}
  local pipe = assert(io.popen 'ls lua/dtls/*.lua')
  for path in pipe:lines() do list[#list + 1] = path end
  pipe:close()
  return list
end

-- Every class: {parent=, fields={name → type}}.
local function classes()
  local found, current = {}, nil
  for _, path in ipairs(sources()) do
    for line in contents(path):gmatch '[^\n]+' do
      local name, parents = line:match '^%-%-%-@class ([%w_.]+):? ?(.*)$'
      if name then
        assert(not found[name], name .. ' is there twice')
        current = { parents = parents, fields = {} }
        found[name] = current
      end
      local field, kind = line:match '^%-%-%-@field ([%w_]+)%??%s+(.+)$'
      if field and field ~= 'private' and field ~= 'package' then
        assert(not current.fields[field], ('%s: %s is there twice'):format(path, field))
        current.fields[field] = kind
      elseif not line:find '^%-%-%-' then
        current = nil
      end
    end
  end
  return found
end

local all = classes()

-- The names of a class's fields, those of its parents included.
local function fields(name, into)
  into = into or {}
  local class = assert(all[name], 'no class ' .. name)
  for field in pairs(class.fields) do into[field] = true end
  for parent in class.parents:gmatch '[%w_.]+' do fields(parent, into) end
  return into
end

-- Whether all names of one table are in the other.
local function within(names, known)
  for name in pairs(names) do assert.is_true(known[name] or false, name) end
end

describe('the annotations of options', function()
  it('have a field for every option of a role, and no others', function()
    local shared = keys(options.credentials, options.settings)
    assert.same(shared, fields 'dtls.ContextOptions')
    assert.same(keys(shared, options.roles.server, { context = true }), fields 'dtls.ServerOptions')
    assert.same(keys(shared, options.roles.client, { context = true }), fields 'dtls.ClientOptions')
  end)

  it('give every field a type', function()
    for _, class in pairs(all) do
      for name, kind in pairs(class.fields) do assert.truthy(kind:find '^[%w_.(\'{]', name .. ': ' .. kind) end
    end
  end)
end)

describe('the annotations of what is known', function()
  it('have a field for every counter, time and detail of a certificate', loop.run(function()
    local me = pair.identity
    local server = pair.echo(pair.listening { demux = 'connected', requestCert = true, ca = me.cert })
    local conn, accepted = pair.open(server, nil, { cert = me.cert, key = me.key })
    pair.roundTrip(conn, 'known')
    within(accepted:stats(), fields 'dtls.ConnectionStats')
    within(server:stats(), fields 'dtls.ServerStats')
    within(accepted:getPeerCertificate(true), fields 'dtls.PeerCertificate')
    pair.close(conn, server)
    -- What a closed connection can say is all that there is, but for its socket's drops.
    local stats = accepted:stats()
    for name in pairs(fields 'dtls.ConnectionStats') do assert.is_not_nil(stats[name], name) end
    local counters = server:stats()
    for name in pairs(fields 'dtls.ServerStats') do assert.is_not_nil(counters[name], name) end
  end))

  it('have every reason of a drop', function()
    local reasons = {}
    for name in contents 'src/base/counters.h':gmatch 'X%([A-Z]+, "(%a+)"%)' do reasons[name] = true end
    assert.same(reasons, fields 'dtls.Drops')
  end)

  it('have every counter and time that doc/operations.md lists, and no others', function()
    local text = contents 'doc/operations.md':match '\n## Statistics\n(.-)\n## '
    local function listed(...)
      local found = {}
      for _, heading in ipairs { ... } do
        local rows = text:match('\n| %l+ | ' .. heading .. '[^\n]*\n[- |]+\n(.-)\n\n')
        for cell in ('\n' .. rows):gmatch '\n| (.-) |' do
          for name in cell:gmatch '`(%w+)`' do found[name] = true end
        end
      end
      return found
    end
    assert.same(fields 'dtls.ServerStats', listed('of a server and of a connection', 'of a server |'))
    assert.same(fields 'dtls.ConnectionStats', listed('of a server and of a connection', 'of a connection; '))
  end)
end)

describe('doc/api.md', function()
  local api = contents 'doc/api.md'

  local function public(class)
    local names = {}
    for name, value in pairs(class) do
      if type(value) == 'function' and not name:find '^_' then names[name] = true end
    end
    return names
  end

  it('names every method of a server, a connection and a context, and no others', loop.run(function()
    local server = pair.listening()
    local conn = pair.client(server)
    local context = assert(dtls.createContext('client', { ca = pair.identity.cert }))
    for heading, object in pairs { Server = server, Connection = conn, Context = context } do
      local methods = public(getmetatable(object))
      methods.new, methods.on = nil, nil -- for server.lua and client.lua; the Emitter's
      local section = api:match('\n## ' .. heading .. '\n(.-)\n## ')
      for name in pairs(methods) do
        local there = section:find('%f[%w]' .. name .. '[({]') or api:find('[`%s]' .. name .. '[({]')
        assert.truthy(there, ('%s: %s'):format(heading, name))
      end
      for name in section:gmatch '`(%l%w*)%(' do assert.is_true(methods[name] or object[name] ~= nil, ('%s: %s'):format(heading, name)) end
    end
    pair.close(conn, server)
  end))

  it('names every public field of a connection, and no others', function()
    local typed, named = {}, {}
    for name in contents 'lua/dtls/connection.lua':gmatch '%-%-%-@field (%a+) ' do
      if name ~= 'private' then typed[name] = true end
    end
    local rows = api:match '\n| field |[^\n]*\n|[- |]+\n(.-)\n\n'
    for name in ('\n' .. rows):gmatch '\n| `(%w+)` |' do named[name] = true end
    assert.same(typed, named)
  end)
end)
