--- What the documents say of the code. They name tests as spec ("a name", "the beginning of one …") or spec: “a
--- name”, “…”.

local ffi = require 'ffi'
local contents = require 'spec.support.contents'
local documents = require 'spec.support.documents'
local keys = require 'spec.support.keys'
local shell = require 'spec.support.shell'

-- Whether the source has a test or a group of tests with this name, or with one that begins so.
local function stands(source, name)
  local beginning = name:match '^(.-) ?…$'
  local literal = ("'%s%s"):format(beginning or name, beginning and '' or "'"):gsub('%p', '%%%0')
  for _, maker in ipairs { 'it', 'describe', 'measured' } do
    if source:find(maker .. '%(+' .. literal) then return true end
  end
  return false
end

-- Looks up in a spec each of the names that a document quotes between these marks.
local function missing(found, path, names, opened, closed)
  local file = io.open(path)
  local source = file and file:read('*a'):gsub("\\'", "'") or ''
  if file then file:close() end
  if source == '' then found[#found + 1] = 'no ' .. path end
  for name in names:gmatch(opened .. '(.-)' .. closed) do
    found.count = found.count + 1
    if not stands(source, name) then found[#found + 1] = ('%s: %s'):format(path, name) end
  end
end

describe('each test that a document names', function()
  it('exists in its spec: SECURITY-CONSIDERATIONS.txt', function()
    local found = { count = 0 }
    local text = contents('SECURITY-CONSIDERATIONS.txt'):gsub('%s+', ' ')
    for spec, names in text:gmatch '%f[%S]([%l_/.]+) (%b())' do
      if names:find '^%("' then
        missing(found, spec:find '%.lua$' and spec or ('spec/faults/%s_spec.lua'):format(spec), names, '"', '"')
      end
    end
    assert.same({ count = found.count }, found)
    assert.is_true(found.count > 60, found.count)
  end)

  for document, folder in pairs { comparison = 'spec/', robustness = 'spec/faults/' } do
    it(('exists in its spec: doc/%s.md'):format(document), function()
      local found = { count = 0 }
      for cell in contents(('doc/%s.md'):format(document)):gmatch '|([^|\n]*)|\n' do
        for spec, names in cell:gmatch '([%l_/]+): (“[^;]*”)' do
          missing(found, ('%s%s_spec.lua'):format(folder, spec), names, '“', '”')
        end
      end
      assert.same({ count = found.count }, found)
      assert.is_true(found.count > 30, found.count)
    end)
  end
end)

describe('doc/api.md', function()
  local api = contents 'doc/api.md'

  -- The names in the first cells of the rows of all tables with this heading.
  local function named(heading)
    local found = {}
    for rows in api:gmatch('\n| ' .. heading .. ' |[^\n]*\n|[- |]+\n(.-)\n\n') do
      for cell in rows:gmatch '[^\n]+' do
        for name in cell:match('^| (.-) |'):gmatch '`([%w]+)`' do found[name] = true end
      end
    end
    return found
  end

  it('lists the options that the code takes, and no others', function()
    local options = require 'dtls.options'
    assert.same(keys(options.credentials, options.settings, { context = true }), named 'option')
    assert.same(keys(options.roles.server), named "server's option")
    assert.same(keys(options.roles.client), named "client's option")
  end)

  -- Calls f(names, cell) with the names of each row of the tables of options and its cell of type and default.
  local function each_option(f)
    for names, cell in api:gmatch '\n| ([^|\n]+) | ([^\n]-) | [^|\n]+ |%f[\n]' do
      local list = {}
      for name in names:gmatch '`(%w+)`' do list[#list + 1] = name end
      f(list, cell)
    end
  end

  it('says of each number which ones the code takes', function()
    local options = require 'dtls.options'
    local tables = { options.credentials, options.settings, options.roles.server, options.roles.client }
    local count = 0
    each_option(function(names, cell)
      local ranges = {}
      for least, most in cell:gmatch '(%d+) to (%d+)' do ranges[#ranges + 1] = { tonumber(least), tonumber(most) } end
      for i, range in ipairs(ranges) do
        local name, check = names[#names - #ranges + i], nil
        for _, each in ipairs(tables) do check = check or each[name] end
        for value, good in pairs { [range[1]] = true, [range[2]] = true, [range[1] - 1] = false, [range[2] + 1] = false } do
          assert.equal(good, check(value) ~= nil, ('%s: %s'):format(name, value))
        end
        count = count + 1
      end
    end)
    assert.equal(7, count)
  end)

  it('says which options only one side has', function()
    local samples = {
      requestCert = true, pskIdentityHint = 'hint', ticketKeys = ('k'):rep(80), checkServerIdentity = print, maxFragmentLength = 512,
    }
    local marked = { server = {}, client = {} }
    for name, side in api:gmatch '\n| `(%w+)` | [^\n]- | (%l+): ' do
      if marked[side] then marked[side][name] = true end
    end
    local own = { server = {}, client = {} }
    for name, value in pairs(samples) do
      for side, other in pairs { server = 'client', client = 'server' } do
        local _, err = require('dtls').createContext(other, { psk = { identity = 'i', key = 'k' }, [name] = value })
        if err and err.message:find('has none', 1, true) then own[side][name] = true end
      end
    end
    assert.same(own, marked)
  end)

  it('says the defaults of the code', function()
    local said = {}
    each_option(function(names, cell)
      for _, name in ipairs(names) do said[name] = (said[name] or '') .. cell end
    end)
    for name, value in pairs(require('dtls.context').defaults) do
      assert.truthy(said[name]:find(tostring(value), 1, true), ('%s: %s'):format(name, value))
    end
  end)

  it('lists the functions of the core, and no others', function()
    local made, listed = {}, {}
    for name, value in pairs(require 'dtls.core') do
      if type(value) == 'function' then made[name] = true end
    end
    for name in api:match('\n## The core\n.-:(.-)%. Its'):gmatch '`([%l_]+)`' do listed[name] = true end
    assert.same(made, listed)
  end)
end)

-- The text of all files that a pattern of the shell's names.
local function sources(pattern)
  local list = {}
  for path in shell('ls ' .. pattern):gmatch '%S+' do list[#list + 1] = contents(path) end
  return table.concat(list, '\n')
end

describe('an event', function()
  local api = contents 'doc/api.md'
  local multiplex, silence = contents 'lua/dtls/multiplex.lua', require 'dtls.silence'

  -- The events in the table under a heading of doc/api.md.
  local function listed(heading)
    local found = {}
    local rows = api:match('\n## ' .. heading .. '\n.-\n| event |[^\n]*\n|[- |]+\n(.-)\n\n')
    for name in ('\n' .. rows):gmatch '\n| `(%w+)`' do found[name] = true end
    return found
  end

  local function overloads(path)
    local found = {}
    for name in contents(path):gmatch "%-%-%-@overload fun%(self: [%w.]+, name: '(%w+)', callback: fun%(" do found[name] = true end
    return found
  end

  -- Adds the events that a receiver fires in a file, and returns how many times.
  local function collect(found, text, receiver)
    local count = 0
    for name in text:gmatch('%f[%w_.]' .. receiver:gsub('%p', '%%%0') .. ":fire%(?%s?'(%w+)'") do
      found[name], count = true, count + 1
    end
    return count
  end

  it('of a server is in doc/api.md, has an overload of on, and is fired by the code; and so the other way round', function()
    local fired = {}
    collect(fired, contents 'lua/dtls/server.lua', 'self')
    collect(fired, contents 'lua/dtls/connection.lua', 'self._server')
    collect(fired, multiplex, 'self')
    assert.same(fired, listed 'Server')
    assert.same(fired, overloads 'lua/dtls/server.lua')
  end)

  it('of a connection is in doc/api.md, has an overload of on, and is fired by the code; and so the other way round', function()
    local fired = keys { timeout = true, receiveTimeout = true }
    assert.same({ 'timeout', 'receiveTimeout' }, silence.EVENTS) -- which connection.lua fires by a variable
    collect(fired, contents 'lua/dtls/connection.lua', 'self')
    collect(fired, multiplex, 'self')
    assert.same(fired, listed 'Connection')
    assert.same(fired, overloads 'lua/dtls/connection.lua')
  end)

  it('is fired by the files that these tests read, and by no other', function()
    local all, read = {}, {}
    for receiver in sources('lua/dtls/*.lua'):gmatch "([%w_.]+):fire%(?%s?'" do all[#all + 1] = receiver end
    local count = collect(read, multiplex, 'self')
    for _, name in ipairs { 'server', 'connection' } do
      local text = contents(('lua/dtls/%s.lua'):format(name))
      count = count + collect(read, text, 'self') + collect(read, text, 'self._server')
    end
    assert.equal(#all, count)
  end)
end)

describe('doc/errors.md', function()
  local errors = contents 'doc/errors.md'
  local codes = errors:match '\n## Error codes\n(.-)\n## '

  it('lists every error code that the code makes, and no others', function()
    local made, listed = {}, {}
    -- A literal makes an error with that code, unless the code of an error is compared with it.
    for code in sources('src/*/*.c src/*/*.h'):gmatch '"(ERR_DTLS_[%u_]+)"' do made[code] = true end
    for before, code in sources('lua/dtls/*.lua'):gmatch "(...)'(ERR_DTLS_[%u_]+)'" do
      if before ~= '== ' then made[code] = true end
    end
    for code in codes:gmatch '\n| `(ERR_DTLS_[%u_]+)` |' do listed[code] = true end
    assert.same(made, listed)
  end)

  it('names system errors and errors of the resolver that the code makes', function()
    local made, count = sources 'src/*/*.c src/*/*.h lua/dtls/*.lua', 0
    for code in codes:gmatch '`(EA?I?_?[%u]+)`' do
      assert.truthy(made:find('[%(\'" {]' .. code .. '[%)\'" ]'), code)
      count = count + 1
    end
    assert.is_true(count > 4, count)
  end)

  it('lists every drop reason of the code, and no others', function()
    local coded, listed = {}, {}
    for name in contents 'src/base/counters.h':gmatch 'X%([A-Z]+, "(%a+)"%)' do coded[name] = true end
    for name in errors:match('\n## Drop reasons\n(.*)$'):gmatch '\n| `(%a+)` |' do listed[name] = true end
    assert.same(coded, listed)
  end)

  it('says of each symptom, code, alert, refused certificate and drop reason what it means and what to do', function()
    local count = 0
    for heading, rows in (errors .. '\n'):gmatch '\n| (%l+) |[^\n]*|\n|[- |]+\n(.-)\n\n' do
      if heading ~= 'field' then
        for row in rows:gmatch '[^\n]+' do
          local cells = {}
          for cell in row:gmatch '|([^|]+)' do cells[#cells + 1] = cell:match '%S.*%S' end
          assert.equal(3, #cells, row)
          count = count + 1
        end
      end
    end
    assert.is_true(count > 70, count)
  end)

  it('names reasons of refused certificates that the code gives, and alerts of the RFCs', function()
    local ssl = ffi.load 'ssl'
    pcall(ffi.cdef, 'const char *SSL_alert_desc_string_long(int value);')
    local reasons, alerts = sources 'src/identity/*.c src/binding/facts.c', {}
    for i = 0, 255 do alerts[ffi.string(ssl.SSL_alert_desc_string_long(i)):lower():gsub(' ', '_')] = true end
    local function each(section, pattern, f)
      local count = 0
      for names in ('\n' .. errors:match('\n### ' .. section .. '\n(.-)\n##')):gmatch '\n| (`.-) |' do
        for name in names:gmatch(pattern) do
          f(name)
          count = count + 1
        end
      end
      assert.is_true(count > 8, count)
    end
    each('Certificates', '`([%u_]+)`', function(name)
      assert.truthy(reasons:find(('X(%s)'):format(name), 1, true) or reasons:find(('"%s"'):format(name), 1, true), name)
    end)
    each('Alerts', '`([%l_]+)`', function(name) assert.is_true(alerts[name], name) end)
  end)
end)

describe('doc/migrating.md', function()
  it('has on its right side only names that doc/api.md has', function()
    local known = contents 'doc/api.md' .. contents 'doc/errors.md' .. contents 'doc/openssl.md'
    local count = 0
    for cell in contents 'doc/migrating.md':gmatch '\n| [^\n]*| ([^|\n]+) |%f[\n]' do
      for code in cell:gmatch '`(.-)`' do
        for name in code:gsub("'.-'", ''):gmatch '%f[%w_]%l[%w_]+' do
          assert.truthy(known:find('%f[%w_]' .. name .. '%f[^%w_]'), name)
          count = count + 1
        end
      end
    end
    assert.is_true(count > 120, count)
  end)
end)

describe('doc/architecture.md', function()
  local text = contents 'doc/architecture.md' .. contents 'doc/pictures/datagram.gv':gsub('\\n', ' ')
  local c, lua = '\n' .. sources 'src/*/*.c src/*/*.h', '\n' .. sources 'lua/dtls/*.lua'
  local files = {} -- by their names without folder and ending
  for path in shell 'ls src/*/*.c src/*/*.h lua/dtls/*.lua':gmatch '%S+' do files[path:match '([%w_]+)%.%l+$'] = true end

  local function defines(name)
    local word = '%f[%w_]' .. name
    return c:find('\n%l[^\n;]*' .. word .. '%([^;{]*%) {') or lua:find('function [%w_.:]*' .. word .. '%(')
  end

  it('names functions that the code defines, and handles that it has of luv', function()
    local count = 0
    for name in text:gmatch '%f[%w_/]%l%w*_[%w_]+' do
      local handle = name:match '^uv_(.+)'
      local there = files[name] or handle and lua:find('uv.new_' .. handle, 1, true) or defines(name)
      assert.truthy(there, name)
      count = count + 1
    end
    assert.is_true(count > 5, count)
  end)

  it('names files and folders that exist', function()
    local count = 0
    for name in text:gmatch '%f[%w_.]%l[%w_]+/[%w_/.]*%f[^%w_/.]' do
      name = name:gsub('[./]+$', '')
      local found = false
      for _, path in ipairs { name, 'src/' .. name, ('src/%s.c'):format(name), ('doc/%s'):format(name) } do
        found = found or select(2, shell('test -e ' .. path)) == 0
      end
      assert.is_true(found, name)
      count = count + 1
    end
    assert.is_true(count > 30, count)
  end)
end)

-- The anchor of a heading, as hosts of repositories make it.
local function anchor(heading) return (heading:lower():gsub('[^%w%- ]', ''):gsub(' ', '-')) end

describe('a picture', function()
  -- Names of the characters that graphviz does not write as they are.
  local entities = { amp = '&', lt = '<', gt = '>', quot = '"' }

  local function plain(text)
    return (text:gsub('&#(%d+);', function(code) return code == '8594' and '→' or string.char(code) end):gsub('&(%l+);', entities))
  end

  -- The texts of a graph: quoted labels line by line, and the names of nodes that have no other label.
  local function written(graph)
    local found = {}
    for label in graph:gmatch '[^%w]label="(.-)"' do
      for line in (label .. '\\n'):gmatch '(.-)\\n' do found[line] = true end
    end
    return found
  end

  it('shows what its text says: `make pictures` has been run since', function()
    local count = 0
    for path in shell 'ls doc/pictures/*.gv':gmatch '%S+' do
      local graph, shown = contents(path), {}
      for text in contents((path:gsub('gv$', 'svg'))):gmatch '<text[^>]*>(.-)</text>' do shown[plain(text)] = true end
      for text in pairs(written(graph)) do
        assert.is_true(shown[text], ('%s: %s'):format(path, text))
        count = count + 1
      end
      for text in pairs(shown) do assert.truthy(graph:find(text, 1, true), ('%s has no: %s'):format(path, text)) end
    end
    assert.is_true(count > 40, count)
  end)
end)

describe('doc/dtlscat.md', function()
  it('has the options of dtlscat, and no others', function()
    local page, taken, described = contents 'doc/dtlscat.md', {}, {}
    for name in contents 'examples/dtlscat.lua':match '%[%[\n(.-)%]%]':gmatch '\n  (%-[%-%l]+)' do taken[name] = true end
    for line in page:match '\n## Options\n(.-)\n## ':gmatch '[^\n]+' do
      if line:find '\\$' then
        for name in line:gmatch '%*%*(%-[%-%l]+)%*%*' do described[name] = true end
      end
    end
    assert.same(taken, described)
  end)
end)

describe('a link in a document', function()
  it('leads to a file that exists, and to a heading in it', function()
    local count = 0
    for _, path in ipairs(documents()) do
      local folder = path:match '^(.*/)' or ''
      for target in contents(path):gmatch '%]%(([^)]+)%)' do
        local file, heading = target:match '^([^#]*)#?(.*)$'
        if not target:find '^https?:' then
          local there = file == '' and path or folder .. file
          assert.equal(0, select(2, shell('test -e ' .. there)), ('%s: %s'):format(path, target))
          if heading ~= '' then
            local anchors = {}
            for text in contents(there):gmatch '\n#+ ([^\n]+)' do anchors[anchor(text)] = true end
            assert.is_true(anchors[heading], ('%s: %s'):format(path, target))
          end
          count = count + 1
        end
      end
    end
    assert.is_true(count > 10, count)
  end)
end)

describe('a file that a document names', function()
  it('exists', function()
    local count = 0
    for _, path in ipairs { 'SECURITY-CONSIDERATIONS.txt', 'README.md', unpack(documents()) } do
      for name in contents(path):gmatch '%f[%w](%l+/[%w_/]+%.%l+)' do
        if name:find '^src/' or name:find '^lua/' or name:find '^spec/' then
          assert.equal(0, select(2, shell('test -e ' .. name)), ('%s names %s'):format(path, name))
          count = count + 1
        end
      end
    end
    assert.is_true(count > 100, count)
  end)
end)

describe('a function that SECURITY-CONSIDERATIONS.txt names after a file', function()
  it('is in that file', function()
    local count = 0
    local text = contents('SECURITY-CONSIDERATIONS.txt'):gsub('%s+', ' ')
    for path, names in text:gmatch '%f[%w]([sl][ru][ca]/[%w_/]+%.%l+) (%b())' do
      local source = contents(path)
      for name in names:sub(2, -2):gmatch '[%w_.]+' do
        assert.truthy(source:find('%f[%w_]' .. name:gsub('%p', '%%%0') .. '%f[^%w_]'), ('%s: %s'):format(path, name))
        count = count + 1
      end
    end
    assert.is_true(count > 30, count)
  end)
end)

describe('the README', function()
  local readme = contents 'README.md'

  it('has at most 120 lines', function()
    assert.is_true(select(2, readme:gsub('\n', '')) <= 120)
  end)
end)
