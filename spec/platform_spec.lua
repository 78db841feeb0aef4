--- What other kernels and C libraries lack: src/base/platform.h names it, and src does without it.

local core = require 'dtls.core'
local contents = require 'spec.support.contents'
local shell = require 'spec.support.shell'

local HEADER = 'src/base/platform.h'

local function lines(command)
  local found = {}
  for line in shell(command):gmatch '[^\n]+' do found[#found + 1] = line end
  return found
end

-- The features, as macros.
local function features()
  local found = {}
  for name in contents(HEADER):match('#define DTLS_FEATURES.-\n\n'):gmatch 'X%(([%u_]+),' do found[#found + 1] = 'DTLS_HAS_' .. name end
  return found
end

-- The files besides the header that ask for a feature.
local function users(feature)
  return lines(("grep -lw %s src/*/*.[ch] | grep -v '^%s'"):format(feature, HEADER))
end

describe('a file in src', function()
  it('asks for a system or a C library in no other place than the header for that', function()
    local systems = '__linux__|__APPLE__|__[A-Za-z]*BSD__|__GLIBC__|_WIN32|__unix__|__ELF__'
    local asks = ([[^ *#.*if.*(%s)|^ *# *include <(linux/|netinet/in\.h|sys/socket\.h)]]):format(systems)
    assert.same({}, lines(("grep -nE '%s' src/*/*.[ch] | grep -v '^%s'"):format(asks, HEADER)))
    assert.is_true(#lines(("grep -E '__linux__|__APPLE__' %s"):format(HEADER)) > 1)
  end)

  it('does without what not every system has, each in one place', function()
    local two = { DTLS_HAS_MMSG = true, DTLS_HAS_EPOLL = true } -- in and out; the call's, and the strategy's
    assert.is_true(#features() >= 10)
    for _, feature in ipairs(features()) do
      assert.equal(two[feature] and 2 or 1, #users(feature), feature)
    end
  end)
end)

describe('the core', function()
  it('names each feature, and on Linux has all or, built with PORTABLE=1, none', function()
    local count, portable = 0, (os.getenv 'DTLS_BUILD' or ''):find('portable', 1, true) ~= nil
    for name, has in pairs(core.platform()) do
      count = count + 1
      assert.equal(not portable, has, name)
    end
    assert.equal(#features(), count)
  end)

  for what, flags in pairs {
    ['nothing but POSIX'] = '-DDTLS_PORTABLE',
    ['FreeBSD\'s options for local addresses'] = '-DIP_RECVDSTADDR=7 -DIP_SENDSRCADDR=7',
  } do
    it('compiles without a warning on a system with ' .. what, function()
      local files = {}
      for _, feature in ipairs(features()) do
        for _, file in ipairs(users(feature)) do files[file] = true end
      end
      for file in pairs(files) do
        local output, status = shell(([[
          cc -std=c11 -D_GNU_SOURCE -Isrc %s -fsyntax-only -Wall -Wextra -Wshadow -Wconversion -Wundef -Werror \
            $(pkg-config --cflags luajit libssl) %s]]):format(flags, file))
        assert.equal(0, status, output)
      end
    end)
  end
end)
