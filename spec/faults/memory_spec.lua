local child = require 'spec.support.child'
local faults = require 'spec.support.faults'
local scaled = require 'spec.support.loop'.scaled

-- DTLS_FAULTS=all leaves no allocation out, which takes its time.
local all = os.getenv 'DTLS_FAULTS' == 'all'

-- Every how many allocations one fails; with slow tools every eighth of those, which still are some of every kind.
local function stride(step) return all and 1 or math.floor(step * 8 / scaled(8)) end

local function sweep(scenario, step, width, kind, within)
  return faults.child(function(...)
    local name, every, count, key, inside = ...
    local loop, shortage = require 'spec.support.loop', require 'spec.support.shortage'
    loop.run(function()
      local lives, excused = shortage.sweep(name, every, count, { type = key }, inside)
      print(lives)
      for each, times in pairs(excused) do print(each, times) end
    end)()
  end, scenario, step, width, kind, within)
end

-- What libcrypto has leaked is told, and not hidden.
local function tell(scenario, told)
  if all then io.write(('%s: %s\n'):format(scenario, (told:gsub('%s+', ' ')))) end
  return tonumber(told:match '^%d+')
end

describe('memory that ends', function()
  -- Seen with 3.5.7: SSL_free itself crashes, in the record layer, for an SSL whose new one could not be made.
  if require 'dtls'.OPENSSL.number >= 0x30200000 then
    pending 'is too much for this version of libssl itself'
    return
  end

  for _, case in ipairs {
    { 'psk', 'with pre-shared keys', 53, 1 }, { 'psk', 'with pre-shared keys', 83, 40 },
    { 'asked', 'with keys that are asked for', 97, 1 },
    { 'certificate', 'with certificates, names, questions and tickets', 499, 1 },
    { 'store', 'with stored sessions', 401, 3 },
  } do
    local scenario, what, step, width = unpack(case)
    it(('for %d allocations is an error at most, and leaves nothing behind (%s)'):format(width, what), function()
      assert.is_true(tell(scenario, sweep(scenario, stride(step), width)) >= scaled(20))
    end)
  end

  -- Here a step could pass over what matters. Which of them are seen at work depends on the compiler.
  it('for one of these functions is an error at most', function()
    local lives = 0
    for _, case in ipairs {
      { 'psk', 'CRYPTO_set_ex_data' }, { 'psk', 'BIO_ADDR_new' }, { 'psk', 'OPENSSL_LH_insert' }, { 'psk', 'BIO_new_ex' },
      { 'psk', 'SSL_do_handshake' }, { 'psk', 'SSL_read' }, { 'certificate', 'X509_digest' }, { 'certificate', 'PEM_write_bio_X509' },
      { 'certificate', 'i2d_PUBKEY_bio' },
      { 'certificate', 'BUF_MEM_grow_clean' }, { 'store', 'd2i_SSL_SESSION' },
    } do
      local scenario, within = unpack(case)
      lives = lives + tell(within, sweep(scenario, 1, 1, nil, within))
    end
    assert.is_true(lives >= 40)
  end)

  for _, kind in ipairs { 'ec', 'ed25519' } do
    it(('makes no certificate, or a good one (%s)'):format(kind), function()
      assert.is_true(tell(kind, sweep('selfSigned', stride(7), 1, kind)) >= scaled(20))
    end)
  end

  it('for any of the keys of a context is an error', function()
    local told = faults.child(function()
      local fault = require 'spec.support.faults'
      assert(fault.C.faults_own_memory(), 'libcrypto has allocated already')
      local dtls = require 'dtls'
      local options = { psk = {} }
      for i = 1, 8 do options.psk['identity ' .. i] = 'key ' .. i end
      assert(dtls.createContext('server', options))
      local n, refused, reached = 0, 0
      repeat
        n = n + 1
        fault.set('memory', n, 1)
        local made, err = dtls.createContext('server', options)
        reached = fault.calls 'memory' >= n
        if not made then
          assert(err.code == 'ERR_DTLS_CONFIG' or err.code == 'ENOMEM', err.code)
          refused = refused + 1
        end
      until not reached
      print(refused)
    end)
    assert.is_true(tonumber(told) >= 3 * 8, told) -- each key needs three
  end)

  it('before the first context is made costs this process its OpenSSL at most', function()
    local told = faults.childWith(child.leaky, function(every) -- libcrypto's own memory, when it has not enough of it
      local fault = require 'spec.support.faults'
      local ffi = require 'ffi'
      ffi.cdef 'int fork(void); int waitpid(int pid, int *status, int options); void _exit(int status); unsigned alarm(unsigned seconds);'
      local C, status, n, reached = ffi.C, ffi.new 'int[1]', 1, true
      while reached do
        io.flush()
        local pid = C.fork()
        if pid == 0 then
          C.alarm(60)
          assert(fault.C.faults_own_memory())
          fault.set('memory', n, 1)
          local good, dtls = pcall(require, 'dtls')
          if good then
            local made, err = dtls.createContext('server', { psk = { me = 'secret' } })
            assert(made or err.code)
            made, err = dtls.selfSigned()
            assert(made or err.code)
          end
          C._exit(fault.calls 'memory' < n and 1 or 0)
        end
        C.waitpid(pid, status, 0)
        reached = status[0] == 0
        assert(reached or status[0] == 256, ('allocation %d: status %d'):format(n, status[0]))
        n = n + every
      end
      print(n)
    end, stride(89))
    assert.is_true(tonumber(told) > 1000)
  end)
end)
