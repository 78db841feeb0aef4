--- The code blocks of the documents do what the documents say.

local blocks = require 'spec.support.blocks'
local contents = require 'spec.support.contents'
local documents = require 'spec.support.documents'
local loop = require 'spec.support.loop'

-- A document of these lines; ''' stands for a fence.
local function document(text) return blocks.of('it', (text:gsub("'''", '```'))) end

local function refused(text)
  local ok, err = pcall(function() return blocks.run(document(text)) end)
  assert.is_false(ok)
  return err
end

describe('a code block', function()
  it('is found with its language, its line and what the comment before it says', function()
    local list = document "text\n\n<!-- file: a.lua; ends: b -->\n'''lua\nreturn\n'''\n\n- it\n\n  '''\n  indented\n  '''\n"
    assert.same({
      { where = 'it:4', language = 'lua', indent = '', says = { file = 'a.lua', ends = 'b' }, text = 'return\n', 'return' },
      { where = 'it:10', language = '', indent = '  ', says = {}, text = 'indented\n', 'indented' },
    }, list)
  end)

  it('is refused when it never ends, or when a comment before it says what nobody knows', function()
    local function reason(text) return select(2, pcall(document, text)) end
    assert.equal('it:1: the block never ends', reason "'''lua\nreturn\n")
    assert.equal('it:2: what is `runs`?', reason "<!-- runs: never -->\n'''lua\n'''\n")
  end)

  it('is not spoken of by a comment that stands before other text', function()
    assert.same({}, document("<!-- not run: for a reason -->\ntext\n'''lua\n'''\n")[1].says)
  end)

  it('fails when its program fails', loop.run(function()
    local printed = 'it:1: it ended with status 1, and printed:\nso far\n.*broken'
    assert.truthy(refused("'''lua\nprint 'so far'\nerror 'broken'\n'''\n"):find(printed))
    assert.truthy(refused("'''sh\ntrue\nfalse\ntrue\n'''\n"):find 'it:1: it ended with status 1')
  end))

  it('fails when it prints something else than the block behind it', loop.run(function()
    assert.truthy(refused("'''sh\necho one\n'''\n'''\ntwo\n'''\n"):find 'it:4: another output than the document says:\none')
    assert.truthy(refused("'''sh\necho one; echo two\n'''\n'''\none\n'''\n"):find 'it:4: another output')
    local program = "'''sh\necho 'one of 7'; echo; echo two; echo '(end)'\n'''\n"
    assert.equal(1, blocks.run(document(program .. "'''\none of …\n…\n(end)\n'''\n")))
  end))

  it('fails when a program that stays has not printed what it should, or has ended', loop.run(function()
    assert.truthy(refused("<!-- stays: a -->\n'''sh\necho one\n'''\n'''\ntwo\n'''\n"):find 'it:5: ')
    local stays = "<!-- stays: a -->\n'''sh\necho $$ >pid\necho one\n'''\n'''\none\n'''\n"
    local waits = "'''sh\nwhile kill -0 $(cat pid) 2>/dev/null; do :; done\n'''\n"
    assert.truthy(refused(stays .. waits .. "<!-- ends: a -->\n'''sh\n'''\n"):find 'it:%d+: `a` had ended by itself')
    assert.truthy(refused(stays:gsub('echo one', 'false')):find 'it:6: ')
    assert.truthy(refused((stays .. waits):gsub('echo one', 'sh -c "echo one; false"')):find '`a` ended with status 1')
  end))

  it('of another language needs a reason why it is not run', loop.run(function()
    assert.truthy(refused("'''js\n'''\n"):find 'it:1: a comment has to say why')
    assert.equal(0, blocks.run(document "<!-- not run: node -->\n'''js\n'''\n"))
  end))
end)

-- Where a reader has the choice, both are tried.
local hosts = { ['README.md'] = { 'luajit', 'luvit' }, ['doc/tutorial.md'] = { 'luajit', 'luvit' } }

describe('every code block', function()
  local runs, count = {}, 0
  for _, path in ipairs(documents()) do
    for _, host in ipairs(hosts[path] or { 'luajit' }) do runs[#runs + 1] = { path = path, host = host } end
  end

  -- At the same time, because most of their time is waiting.
  lazy_setup(loop.run(function()
    loop.call(function(done)
      local left = #runs
      for _, run in ipairs(runs) do
        coroutine.wrap(function()
          run.ok, run.result = pcall(function() return blocks.run(blocks.of(run.path, contents(run.path)), run.host) end)
          left = left - 1
          if left == 0 then done() end
        end)()
      end
    end, 'the documents', 50000)
  end))

  for _, run in ipairs(runs) do
    it(('of %s does what the document says, in %s'):format(run.path, run.host), function()
      assert.is_true(run.ok, run.result)
      count = count + run.result
    end)
  end

  it('was found', function() assert.is_true(count > 60, count) end)
end)
