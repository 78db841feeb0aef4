--- The documents name tests: spec ("a name", "the beginning of one …") or spec: “a name”, “…”. They must be there.

local contents = require 'spec.support.contents'
local keys = require 'spec.support.keys'

-- Whether a test or a group of tests has that name, or one that begins with it.
local function stands(source, name)
  local beginning = name:match '^(.-) ?…$'
  local literal = ("'%s%s"):format(beginning or name, beginning and '' or "'"):gsub('%p', '%%%0')
  for _, maker in ipairs { 'it', 'describe', 'measured' } do
    if source:find(maker .. '%(+' .. literal) then return true end
  end
  return false
end

-- Looks up what follows the name of a spec: quoted names, between these marks.
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

describe('each test that is named', function()
  it('in SECURITY-CONSIDERATIONS.txt stands in its spec', function()
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

  for title, folder in pairs { Compared = 'spec/', ['Talks with'] = 'spec/', Survives = 'spec/faults/' } do
    it(('in the README under %s stands in its spec'):format(title), function()
      local found = { count = 0 }
      local section = contents('README.md'):match('\n## ' .. title .. '\n(.-)\n## ')
      for cell in section:gmatch '|([^|\n]*)|\n' do
        for spec, names in cell:gmatch '([%l_/]+): (“[^;]*”)' do
          missing(found, ('%s%s_spec.lua'):format(folder, spec), names, '“', '”')
        end
      end
      assert.same({ count = found.count }, found)
      assert.is_true(found.count > 10, found.count)
    end)
  end
end)

describe('the README', function()
  local readme = contents 'README.md'

  -- The names in the first cells of the rows of a table.
  local function named(heading)
    local found = {}
    local rows = readme:match('\n| ' .. heading .. ' |[^\n]*\n|[- |]+\n(.-)\n\n')
    for cell in rows:gmatch '[^\n]+' do
      for name in cell:match('^| (.-) |'):gmatch '`([%w]+)`' do found[name] = true end
    end
    return found
  end

  it('lists the options that the code takes, and no others', function()
    local options = require 'dtls.options'
    assert.same(keys(options.credentials, options.settings, { context = true }), named 'option')
    assert.same(keys(options.roles.server), named "server's option")
    assert.same(keys(options.roles.client), named "client's option")
  end)

  it('lists every error code of the code, and no others', function()
    local coded, listed = {}, {}
    local pipe = assert(io.popen "grep -ohE 'ERR_DTLS_[A-Z_]*[A-Z]' src/*/*.c lua/dtls/*.lua")
    for code in pipe:lines() do coded[code] = true end
    pipe:close()
    for code in readme:match('\n### Error codes\n(.-)\n### '):gmatch '| `(ERR_DTLS_[%u_]+)` |' do listed[code] = true end
    assert.same(coded, listed)
  end)
end)
