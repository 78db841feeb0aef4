--- What `make dist` makes of the last commit: the tarball, and the rockspec that installs from it.

local dtls = require 'dtls'
local contents = require 'spec.support.contents'
local shell = require 'spec.support.shell'

describe('make dist', function()
  local release = 'luvit-dtls-' .. dtls.VERSION
  local _, status = shell 'git rev-parse --verify HEAD'
  if status ~= 0 then return pending('needs a clone with git') end
  local tree

  -- Runs it in a shell with these settings, into a folder of its own; returns the folder.
  local function made(name, settings)
    local output, failed = shell(('%s; make dist BUILD=%s/%s'):format(settings, tree, name))
    assert.equal(0, failed, output)
    return ('%s/%s/dist'):format(tree, name)
  end

  local function rockspec(folder)
    local loaded = {}
    setfenv(assert(loadfile(('%s/%s-1.rockspec'):format(folder, release))), loaded)()
    return loaded
  end

  local folder

  setup(function()
    tree = shell('mktemp -d'):match '[^\n]+'
    folder = made('here', 'umask 022; export TZ=UTC')
  end)

  teardown(function() shell('rm -r ' .. tree) end)

  it('puts every file of the last commit into the tarball, as readable and executable as it is there, and no other file', function()
    shell(('tar -xzf %s/%s.tar.gz -C %s'):format(folder, release, tree))
    local differences = shell(('cd %s/%s && find . -type f | sed s,./,, | LC_ALL=C sort >../packed && find . -type f -perm -111 | wc -l')
      :format(tree, release))
    local executable = shell "git ls-tree -r HEAD | grep -c '^100755'"
    assert.equal(executable, differences)
    assert.equal('', shell(('git ls-tree -r --name-only HEAD | LC_ALL=C sort | diff - %s/packed'):format(tree)))
    assert.equal('', shell(('git archive HEAD README.md src | tar -x -C %s && cd %s && diff -r src %s/src && cmp README.md %s/README.md')
      :format(tree, tree, release, release)))
  end)

  it('makes the same bytes on another day, by another user and in another time zone', function()
    local again = made('there', 'umask 077; export TZ=Asia/Tokyo')
    assert.equal('', shell(('diff -r %s %s'):format(folder, again)))
    local listed = shell(('tar -tvzf %s/%s.tar.gz --numeric-owner'):format(folder, release))
    assert.is_nil(listed:match '\n%S+ [1-9]%d*/')
  end)

  it('writes a rockspec that is that of the repository, with this version, and names the tarball by its place and its MD5', function()
    local loaded, original = rockspec(folder), {}
    setfenv(assert(loadfile 'rockspec/luvit-dtls-scm-0.rockspec'), original)()
    assert.equal(dtls.VERSION .. '-1', loaded.version)
    local source = loaded.source
    assert.equal(('https://github.com/luvit/luvit-dtls/releases/download/v%s/%s.tar.gz'):format(dtls.VERSION, release), source.url)
    assert.equal(release, source.dir)
    assert.equal(shell(('md5sum <%s/%s.tar.gz'):format(folder, release)):match '%x+', source.md5)
    for _, field in ipairs { 'version', 'source' } do loaded[field], original[field] = nil, nil end
    assert.same(original, loaded)
  end)

  it('lists the SHA-256 of each file that it makes', function()
    assert.equal(0, select(2, shell(('cd %s && sha256sum --check --strict SHA256SUMS'):format(folder))))
    for name in shell('ls ' .. folder):gmatch '%S+' do
      if name ~= 'SHA256SUMS' then assert.truthy(contents(folder .. '/SHA256SUMS'):find('  ' .. name .. '\n', 1, true), name) end
    end
  end)
end)
