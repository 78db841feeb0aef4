--- What editors are told (LuaCATS): the classes of the annotations are what the code takes and gives.

local dtls = require 'dtls'
local contents = require 'spec.support.contents'
local keys = require 'spec.support.keys'
local loop = require 'spec.support.loop'
local options = require 'dtls.options'
local pair = require 'spec.support.pair'
local needs = require('spec.support.platform').needs

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
    assert.same(keys(fields 'dtls.ServerOptions', { port = true, host = true, handle = true }), fields 'dtls.CoroServerOptions')
  end)

  it('give every field a type', function()
    for _, class in pairs(all) do
      for name, kind in pairs(class.fields) do assert.truthy(kind:find '^[%w_.(\'{]', name .. ': ' .. kind) end
    end
  end)
end)

describe('the annotations of what is known', function()
  it('have a field for every counter, time and detail of a certificate', needs('epoll', loop.run(function()
    local me = pair.identity
    local server = pair.echo(pair.listening { demux = 'connected', requestCert = true, ca = me.cert })
    local conn, accepted = pair.open(server, nil, { cert = me.cert, key = me.key })
    pair.roundTrip(conn, 'known')
    within(accepted:stats(), fields 'dtls.ConnectionStats')
    within(server:stats(), fields 'dtls.ServerStats')
    within(accepted:getPeerCertificate(true), fields 'dtls.PeerCertificate')
    assert.same(fields 'dtls.PublicKey', keys(accepted:getPeerPublicKey()))
    pair.close(conn, server)
    -- What a closed connection can say is all that there is, but for its socket's drops.
    local stats = accepted:stats()
    for name in pairs(fields 'dtls.ConnectionStats') do assert.is_not_nil(stats[name], name) end
    local counters = server:stats()
    for name in pairs(fields 'dtls.ServerStats') do assert.is_not_nil(counters[name], name) end
  end)))

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

-- ── functions ──

-- What stands before the function of a line.
local function annotation(lines, number)
  local first = number
  while lines[first - 1] and lines[first - 1]:find '^%-%-%-' do first = first - 1 end
  local found = { text = '', params = {}, returns = 0, overloads = {} }
  for i = first, number - 1 do
    local tag, rest = lines[i]:match '^%-%-%-@(%l+) ?(.*)$'
    if tag == 'param' then
      local name, mark, kind = rest:match '^([%w_.]+)(%??) (.+)$'
      local optional = mark == '?' or kind:find '|nil' or kind:find '^%S+%?' or kind:find '^fun%b()%?'
      found.params[#found.params + 1] = { name = name, kind = kind, optional = optional and true or false }
    elseif tag == 'return' then
      found.returns = found.returns + 1
      found.text = found.text .. (rest:match '^%S+ %S+ .+' or '')
    elseif tag == 'overload' then
      found.overloads[#found.overloads + 1] = rest
    elseif not tag then
      found.text = found.text .. lines[i]:sub(4)
    end
  end
  return found
end

-- Whether the function of a line returns something; functions inside of it do not count.
local function gives(lines, number)
  local inside, indent = 0, nil
  for i = number, #lines do
    local line = lines[i]
    local deeper = i > number and line:find 'function%(' and not line:find '%f[%w]end%f[%W]'
    if inside == 0 and line:find 'return function%(' then return true end
    if inside == 0 and not deeper and line:find '%f[%w_]return%f[^%w_] *[^%s]' and not line:find 'return end' and
      not (i > number and line:find 'function%(') then return true end
    if deeper then
      inside, indent = inside + 1, indent or line:match '^ *'
    elseif inside > 0 and line:find('^' .. indent .. 'end') then
      inside, indent = 0, nil
    end
    if i > number and line:find '^end' or i == number and line:find ' end$' then return false end
  end
end

local read = {}

-- Every function of a file, by what stands behind `function` ('Server:listen', 'create').
local function functions(path)
  if read[path] then return read[path] end
  local found, lines = {}, {}
  read[path] = found
  for line in (contents(path) .. '\n'):gmatch '(.-)\n' do lines[#lines + 1] = line end
  for number, line in ipairs(lines) do
    local name, takes = line:match '^function ([%w_.:]+)(%b())'
    if not name then name, takes = line:match '^local function ([%w_]+)(%b())' end
    if name then
      local each = annotation(lines, number)
      each.where, each.takes, each.gives = ('%s:%d: %s'):format(path, number, name), {}, gives(lines, number)
      for parameter in takes:gmatch '[%w_.]+' do each.takes[#each.takes + 1] = parameter end
      found[name] = each
    end
    local alias, of = line:match '^(%u%w*%.%w+) = (%u%w*%.%w+)$'
    if alias and found[of:gsub('%.', ':')] then found[alias:gsub('%.', ':')] = found[of:gsub('%.', ':')] end
  end
  return found
end

-- Files whose methods a class has, the ones of its own first; Lua calls the class something else in each.
local classes_of = {
  Server = { 'server', 'multiplex', 'emitter' },
  Connection = { 'connection', 'setters', 'info', 'mtu', 'multiplex', 'emitter' },
  Context = { 'context', 'setters' },
}

local function method(class, name)
  for _, file in ipairs(classes_of[class]) do
    for full, found in pairs(functions(('lua/dtls/%s.lua'):format(file))) do
      if full:match '^%u%w*[:.](%w+)$' == name then return found end
    end
  end
end

-- Calls f(name, annotation) for each public method of a class, and each function of the module.
local function each_public(f)
  local server = assert(dtls.createServer { psk = { a = ('k'):rep(16) } })
  local objects = { Server = server, Connection = require 'dtls.connection', Context = getmetatable(assert(dtls.createContext('client', {
    ca = pair.identity.cert,
  }))) }
  for class, object in pairs(objects) do
    local seen = {}
    while object do
      for name, value in pairs(rawget(object, '__index') and object or getmetatable(object) or {}) do
        if type(value) == 'function' and not name:find '^_' and name ~= 'new' and not seen[name] then
          seen[name] = true
          f(('%s:%s'):format(class, name), method(class, name))
        end
      end
      local up = getmetatable(object)
      object = up ~= object and up or nil
    end
  end
  local module = contents 'lua/dtls/init.lua'
  for name, value in pairs(dtls) do
    if type(value) == 'function' and value ~= dtls.fd then
      local file, called = module:match('\n  ' .. name .. ' = (%l+)%.(%w+),')
      local all_of = functions(('lua/dtls/%s.lua'):format(file or 'init'))
      f('dtls.' .. name, all_of[called and ('%s.%s'):format(file, called)] or all_of[called or name])
    end
  end
  for name in pairs(require 'dtls.coro') do f('coro.' .. name, functions('lua/dtls/coro.lua')['coro.' .. name]) end
end

describe('the annotation of a public function', function()
  it('exists, says what the function does, and names every parameter and that it returns something', function()
    local count = 0
    each_public(function(name, found)
      assert.truthy(found, name .. ' was not found')
      local named = {}
      for i, each in ipairs(found.params) do named[i] = each.name end
      if not found.overloads[1] then
        assert.same({ found.where, found.takes }, { found.where, named })
        assert.same({ found.where, found.gives }, { found.where, found.returns > 0 })
      end
      assert.is_true(#found.text > 5, found.where .. ' says nothing')
      count = count + 1
    end)
    assert.is_true(count > 60, count)
  end)

  it('has the parameters that doc/api.md has, in their order, and the same ones are optional', function()
    local api = contents 'doc/api.md'
    local count = 0
    local function compare(name, text, found)
      assert.truthy(found, name)
      local index = 0
      text = text:gsub('\\|', '|')
      for bracket, parameter in text:gmatch '(%[?),? ?([%w|\']+)' do
        index = index + 1
        local given = found.params[index]
        local where = ('%s, %s'):format(name, parameter)
        assert.truthy(given, where)
        -- In the functions of the module `options` would be the file of that name.
        if not parameter:find "[|']" and name:find ':' then assert.equal(parameter, given.name, where) end
        assert.equal(bracket == '[', given.optional, where)
      end
      assert.equal(#found.params, index, name)
      count = count + 1
    end
    for class, section in pairs { Server = 'Server', Connection = 'Connection' } do
      local rows = api:match('\n## ' .. section .. '\n.-\n| method |[^\n]*\n[-| ]+\n(.-)\n\n')
      for cell in ('\n' .. rows):gmatch '\n| (`.-) | ' do
        for name, text in cell:gmatch '`(%w+)%((.-)%)`' do
          if text ~= 'handle[, callback]' then compare(('%s:%s'):format(class, name), text, method(class, name)) end
        end
      end
    end
    each_public(function(name, found)
      local text = api:match('\n| `' .. name:gsub('%p', '%%%0') .. '(%b())` |')
      if not name:find ':' then compare(name, text:sub(2, -2), found) end
    end)
    assert.is_true(count > 40, count)
  end)
end)

describe('the annotations of the module', function()
  it('have every constant, and the function that is in C', function()
    local constants = {}
    for name, value in pairs(dtls) do
      if type(value) ~= 'function' or value == dtls.fd then constants[name] = true end
    end
    assert.same(constants, fields 'dtls')
  end)

  it('name no type that there is not', function()
    local known = keys(all, {
      string = 1, integer = 1, number = 1, boolean = 1, table = 1, ['function'] = 1, fun = 1, ['nil'] = 1, any = 1, self = 1, userdata = 1,
      thread = 1, ['true'] = 1, ['false'] = 1, uv_udp_t = 1,
    })
    for _, path in ipairs(sources()) do
      for alias in contents(path):gmatch '%-%-%-@alias ([%w_.]+)' do known[alias] = true end
    end
    local count = 0
    for _, path in ipairs(sources()) do
      for line in contents(path):gmatch '%-%-%-@[^\n]+' do
        for name in line:gmatch '%f[%w_.](dtls%.%u[%w_]+)' do
          assert.is_true(known[name], ('%s: %s'):format(path, line))
          count = count + 1
        end
        local kind = line:match '^%-%-%-@param [%w_.]+%?? ([%w_.]+)' or line:match '^%-%-%-@return ([%w_.]+)' or
          line:match '^%-%-%-@field [%w_]+%?? ([%w_.]+)'
        if kind and not kind:find '^%d' and not line:find '@field private' and not line:find '@field package' then
          assert.is_true(known[kind], ('%s: %s'):format(path, line))
        end
      end
    end
    assert.is_true(count > 100, count)
  end)
end)

describe('the overload of an event', function()
  it('has the arguments that doc/api.md has', function()
    local api = contents 'doc/api.md'
    local count = 0
    for _, class in ipairs { 'Server', 'Connection' } do
      local typed = {}
      for _, overload in ipairs(method(class, 'on').overloads) do
        local name, arguments = overload:match "name: '(%w+)', callback: fun(%b())"
        local names = {}
        for argument in (', ' .. arguments:sub(2, -2)):gmatch ', (%w+): ' do names[#names + 1] = argument end
        typed[name] = table.concat(names, ', ')
      end
      local rows = api:match('\n## ' .. class .. '\n.-\n| event |[^\n]*\n[-| ]+\n(.-)\n\n')
      for name, arguments in ('\n' .. rows):gmatch '\n| `(%w+)` | ?([^|]-) ?| ' do
        assert.equal(arguments, typed[name], ('%s: %s'):format(class, name))
        count = count + 1
      end
    end
    assert.is_true(count > 15, count)
  end)
end)

describe('the type of an option', function()
  -- What doc/api.md calls a type → what an annotation then has.
  local words = { boolean = '%f[%w]boolean', ms = 'integer', Context = 'dtls%.Context', ['function'] = '[fF]un' }

  it('is the one that doc/api.md says', function()
    local api, count = contents 'doc/api.md', 0
    for names, kind in api:gmatch '\n| (`%w[^|\n]+) | ([^\n]-) | [^|\n]+ |%f[\n]' do
      for name in names:gmatch '`(%w+)`' do
        local typed
        for _, class in ipairs { 'Context', 'Server', 'Client' } do typed = typed or all[('dtls.%sOptions'):format(class)].fields[name] end
        if typed then
          for word, pattern in pairs(words) do
            if kind:match '^[^;]*':find('%f[%w]' .. word .. '%f[%W]') then
              assert.truthy(typed:find(pattern), ('%s: %s and %s'):format(name, kind, typed))
              count = count + 1
            end
          end
        end
      end
    end
    assert.is_true(count > 15, count)
  end)

  it('comes with the default of the code', function()
    for name, value in pairs(require 'dtls.context'.defaults) do
      local typed = all['dtls.ContextOptions'].fields[name]
      assert.truthy(typed:find('default ' .. tostring(value), 1, true), ('%s: %s'):format(name, typed))
    end
  end)
end)

describe('the annotations of an error', function()
  it('have the fields that doc/errors.md has, besides code and message', function()
    local named = { code = true, message = true }
    local rows = contents 'doc/errors.md':match '\n| field |[^\n]*\n[-| ]+\n(.-)\n\n'
    for name in ('\n' .. rows):gmatch '\n| `(%w+)` |' do named[name] = true end
    assert.same(named, fields 'dtls.Error')
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
