--- The benchmarks still run, and the documents have a place for each of their tables.

local contents = require 'spec.support.contents'
local shell = require 'spec.support.shell'

describe('make bench', function()
  it('shows a table of the servers that it has measured', function()
    local output, status = shell [[unset MAKEFLAGS MAKELEVEL
      BENCH_SECONDS=0.05 BENCH_ROUNDS=1 make -s bench BUILD="${DTLS_BUILD:-build}" TABLES='hello oneway']]
    assert.equal(0, status, output)
    for _, row in ipairs { 'HelloVerifyRequest', 'to the server', 'to the clients' } do
      local ratios = 0
      for _ in output:match('\n| ' .. row .. '([^\n]*)'):gmatch '%d[%d.]* · %*%*%d+%.%d%d%*%* · %d+' do ratios = ratios + 1 end
      assert.equal(3, ratios, output)
    end
  end)

  it('puts a table in the place of its name, instead of the one that is there, and touches nothing if it has none', function()
    local path = os.tmpname()
    local before = 'a\n<!-- bench: other -->\n\nold\n\n<!-- bench end -->\nb\n<!-- bench: hello -->\n\nold\n\n<!-- bench end -->\nc\n'
    local function write(name)
      local file = assert(io.open(path, 'w'))
      file:write(before)
      file:close()
      return select(2, shell(([[luajit -e "package.path = 'bench/?.lua;' .. package.path
        local report = require 'report'
        report.begin('hello', 'x', 'y')
        report.row('1', '2')
        report.text('%s', 'new')
        report.write { '%s' }"]]):format(name, path)))
    end
    assert.equal(0, write 'other')
    local after = before:gsub('old', 'new', 1):gsub('old', '| x | y |\n| --- | --- |\n| 1 | 2 |')
    assert.equal(after, contents(path))
    assert.equal(1, write 'nowhere')
    assert.equal(before, contents(path))
    os.remove(path)
  end)

  it('finds a place for each of its tables in the documents', function()
    local run, placed = contents 'bench/run.lua', {}
    for path in run:match 'DOCUMENTS = (%b{})':gmatch "'(.-)'" do
      for name, text in contents(path):gmatch '<!%-%- bench: (%l+) %-%->\n(.-)<!%-%- bench end %-%->' do
        assert.falsy(text:find('<!--', 1, true), name)
        placed[name] = true
      end
    end
    local made = { machine = true, capacity = true, readme = true }
    for name in run:match 'TABLES = (%b{})':gmatch "'(.-)'" do made[name] = true end
    assert.same(made, placed)
  end)
end)
