--- The code blocks of a document, and a way to run them all as a reader would: one after the other, in one folder.
---
--- A block without a comment before it is run: `lua` by luajit, `sh` by sh; it has to end, with status 0. A block of no
--- language is what the block that ran before it prints (`…` stands for anything in a line, and alone for any lines).
--- `text` is to be looked at. A comment, `<!-- word: value; … -->`, in the line before a block says otherwise:
---
---   file: NAME       it is kept under this name, for the blocks that follow
---   stays: NAME      it goes on running, under this name, while the others run
---   ends: NAME       before it runs, the one of this name, which is still there, gets SIGTERM, and ends
---   interrupts: NAME the same with SIGINT, as by Ctrl-C, and it ends without a word about that
---   output of: NAME  the one of this name prints this, after all that it was seen to print before
---   with: NAME       it is part of a program, spec/support/fixtures/NAME.lua, where a line says `-- the block --`
---   needs: PROGRAM   it is passed over, and so is its output, where there is no such program, or no OpenSSL with raw public keys
---   not run: WHY     it cannot be run here

local dtls = require 'dtls'
local uv = require 'luv'
local contents = require 'spec.support.contents'
local process = require 'spec.support.process'
local raw = require 'spec.support.raw'
local shell = require 'spec.support.shell'

local blocks = {}

local WORDS = {
  file = true, stays = true, ends = true, interrupts = true, ['output of'] = true, with = true, needs = true, ['not run'] = true,
}

-- What a comment before a block says: {word = value}.
local function directives(comment, where)
  local found = {}
  for word, value in comment:gmatch '([%l ]-)%s*:%s*([^;]+);?%s*' do
    if not WORDS[word] then error(('%s: what is `%s`?'):format(where, word), 0) end
    found[word] = value:gsub('%s+$', '')
  end
  return found
end

---@class spec.Block
---@field where string the document and the line
---@field language string '' for none
---@field text string
---@field says table<string, string> what the comment before it says

--- The blocks of a text, in their order.
---@param document string what it is called
---@param text string
---@return spec.Block[]
function blocks.of(document, text)
  local list, block, comment, number = {}, nil, nil, 0
  for line in (text .. '\n'):gmatch '(.-)\n' do
    number = number + 1
    local indent, fence = line:match '^(%s*)```(.*)$'
    if block and fence then
      block.text, block = table.concat(block, '\n') .. '\n', nil
    elseif block then
      block[#block + 1] = line:sub(#block.indent + 1)
    elseif fence then
      local where = ('%s:%d'):format(document, number)
      block = { where = where, language = fence, indent = indent, says = directives(comment or '', where) }
      list[#list + 1] = block
    end
    comment = line:match '^%s*<!%-%-%s*(.-)%s*%-%->$' or (line:find '%S' and '' or comment)
  end
  if block then error(block.where .. ': the block never ends', 0) end
  return list
end

-- ── running them ──

local Session = {}
Session.__index = Session

local root = uv.cwd()

local function write(path, text)
  local file = assert(io.open(path, 'w'))
  file:write(text)
  file:close()
end

-- Beside the folder where the blocks run there is the checkout, with the build that is tested; and programs `luvit`, `dtlscat`.
local function prepare(host)
  local build = assert(uv.fs_realpath(os.getenv 'DTLS_BUILD' or 'build'))
  local base = assert(uv.fs_mkdtemp((os.getenv 'TMPDIR' or '/tmp') .. '/dtls-spec-XXXXXX'))
  for _, name in ipairs { 'work', 'work/deps', 'bin', 'luvit-dtls' } do assert(uv.fs_mkdir(base .. '/' .. name, 448)) end
  for name in shell 'ls':gmatch '%S+' do
    if name ~= 'build' then assert(uv.fs_symlink(root .. '/' .. name, base .. '/luvit-dtls/' .. name)) end
  end
  assert(uv.fs_symlink(build, base .. '/luvit-dtls/build'))
  assert(uv.fs_symlink(build .. '/luvit/dtls', base .. '/work/deps/dtls'))
  local luvit = base .. '/bin/luvit'
  write(luvit, ([[
#!/bin/sh
script=$(realpath "$1"); shift
exec env -u LUA_PATH -u LUA_CPATH %s/host/luvi %s/spec/host/init.lua "$script" "$@"
]]):format(build, root))
  local dtlscat = base .. '/bin/dtlscat'
  write(dtlscat, ('#!/bin/sh\nexec luajit %s/examples/dtlscat.lua "$@"\n'):format(root))
  write(base .. '/authorities.pem', assert(dtls.selfSigned()).cert) -- for the system's, which not every machine has
  for _, program in ipairs { luvit, dtlscat } do assert(uv.fs_chmod(program, 448)) end
  if host == 'luvit' then assert(uv.fs_symlink(luvit, base .. '/bin/luajit')) end
  return base, build
end

-- Ports of documents are this machine's free ones, so that several documents can be run at a time.
function Session:_ported(text)
  return (text:gsub('%f[%w]568%d%f[%W]', function(port)
    self.ports[port] = self.ports[port] or tostring(raw.freePort '0.0.0.0')
    return self.ports[port]
  end))
end

function Session:_start(block)
  local text, says = self:_ported(block.text), block.says
  local run = text
  if block.language == 'lua' then
    local name = says.file or ('block%s.lua'):format(block.where:match '%d+$')
    if says.with then
      local whole = contents(('spec/support/fixtures/%s.lua'):format(says.with))
      local before, after = whole:match '^(.-)%-%- the block %-%-\n(.*)$'
      text = before .. text .. self:_ported(after)
    end
    write(('%s/work/%s'):format(self.base, name), text)
    run = 'exec luajit ' .. name
  elseif says.stays then
    run = text:gsub('([^\n]+\n)$', 'exec %1') -- what is ended is the program itself, not its shell
  end
  local child = process.spawn('env', {
    '-C', self.base .. '/work', ('PATH=%s/bin:%s'):format(self.base, os.getenv 'PATH'),
    ('LUA_PATH=%s/lua/?.lua;%s/lua/?/init.lua;;'):format(root, root), ('LUA_CPATH=%s/?.so;;'):format(self.build), 'LUA_INIT=',
    ('SSL_CERT_FILE=%s/authorities.pem'):format(self.base),
    'stdbuf', '-oL', 'sh', '-euc', 'exec 2>&1\n' .. run,
  })
  self.children[#self.children + 1] = child
  return child
end

local function failed(block, child, what)
  error(('%s: %s\n%s'):format(block.where, what, child and child.output.stdout or ''), 0)
end

-- What a block of output looks like as a pattern.
local function pattern(text)
  local lines = {}
  for line in text:gmatch '([^\n]*)\n' do
    lines[#lines + 1] = line == '…' and '.-' or line:gsub('%p', '%%%0'):gsub('%%\226%%\128%%\166', '…'):gsub('…', '[^\n]*') .. '\n'
  end
  return table.concat(lines)
end

function Session:_compare(block)
  local name = block.says['output of']
  local child = self.last
  if name then child = self.staying[name] end
  if not child then failed(block, nil, 'this is the output of nothing') end
  local expected = pattern(self:_ported(block.text))
  if not name and not child.stays then
    if not child.output.stdout:find('^' .. expected .. '$') then failed(block, child, 'another output than the document says:') end
  else
    local ok = pcall(child.expect, child, '()' .. expected)
    if not ok then failed(block, child, 'the program that stays has not printed this, but:') end
    child.output.stdout = child.output.stdout:gsub('^.-' .. expected, '', 1)
  end
end

-- `signal`, and the status of a program that ends itself at that.
function Session:_end(block, name, signal, status)
  local child = self.staying[name]
  if not child then failed(block, nil, ('there is no `%s` that could end'):format(name)) end
  self.staying[name] = nil
  if child.code then failed(block, child, ('`%s` had ended by itself, having printed:'):format(name)) end
  child.handle:kill(signal)
  local ok, code, by = pcall(child.wait, child)
  if not ok or by == 0 and code ~= status then failed(block, child, ('a %s did not end `%s`, which printed:'):format(signal, name)) end
end

-- At the end of a document a program that stays may have ended, unless it failed.
function Session:_finish(block)
  for name, child in pairs(self.staying) do
    if not child.code then
      child:kill()
    elseif child.code ~= 0 then
      failed(block, child, ('`%s` ended with status %d, having printed:'):format(name, child.code))
    end
  end
end

local function is_missing(what)
  if what == 'raw public keys' then return not dtls.createContext('client', { rawPublicKey = true, rejectUnauthorized = false }) end
  return what and select(2, shell('command -v ' .. what)) ~= 0
end

function Session:_run(block)
  local says = block.says
  if block.language ~= '' or says.needs then self.passed = is_missing(says.needs) end
  if self.passed then return end
  if says.ends then self:_end(block, says.ends, 'sigterm', 0) end
  if says.interrupts then self:_end(block, says.interrupts, 'sigint', 128 + 2) end
  if says['not run'] or block.language == 'text' then return end
  if block.language == '' then return self:_compare(block) end
  if block.language ~= 'lua' and block.language ~= 'sh' then failed(block, nil, 'a comment has to say why this is not run') end
  self.ran = self.ran + 1
  if says.file then return write(('%s/work/%s'):format(self.base, says.file), self:_ported(block.text)) end
  local child = self:_start(block)
  self.last = child
  if says.stays then
    self.staying[says.stays], child.stays = child, true
    return
  end
  child:finish()
  local ok, code = pcall(child.wait, child)
  if not ok then failed(block, child, 'it did not end, and printed:') end
  if code ~= 0 then failed(block, child, ('it ended with status %d, and printed:'):format(code)) end
end

--- Runs the blocks of a document, inside loop.run. Raises with the first that does not do what the document says.
---@param list spec.Block[] what of() returned
---@param host? 'luajit'|'luvit' what runs Lua; luajit
---@return integer count of those that ran
function blocks.run(list, host)
  local base, build = prepare(host)
  local self = setmetatable({ base = base, build = build, ports = {}, children = {}, staying = {}, ran = 0 }, Session)
  local ok, err = pcall(function()
    for _, block in ipairs(list) do self:_run(block) end
    self:_finish(list[#list])
  end)
  for _, child in ipairs(self.children) do pcall(child.kill, child) end
  for name, child in pairs(ok and {} or self.staying) do err = ('%s\n`%s` printed:\n%s'):format(err, name, child.output.stdout) end
  shell(("rm -rf '%s'"):format(base))
  if not ok then error(err, 0) end
  return self.ran
end

return blocks
