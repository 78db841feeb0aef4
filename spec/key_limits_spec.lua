-- Limits of the keys in a peer's certificates: a forged key costs its maker nothing and its verifier much CPU time.

local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'

describe('a peer\'s certificate chain', function()
  local files, authority, plain, keys
  local names = {
    'an RSA key of 16384 bits', 'an RSA key of 8200 bits', 'an RSA key of 2048 bits with an exponent of 2047 bits',
    'an RSA key of 2048 bits with an exponent of 33 bits',
  }

  setup(function()
    files = pki.new()
    authority = files:certificate('authority', { authority = true })
    plain = files:certificate('plain', { issuer = authority })
    local long = '71' .. ('F1'):rep(255) -- shorter than the modulus, or libcrypto refuses it itself
    keys = {
      ['an RSA key of 16384 bits'] = files:forged('large', 16384, '10001'),
      ['an RSA key of 8200 bits'] = files:forged('above', 8200, '10001'),
      ['an RSA key of 2048 bits with an exponent of 2047 bits'] = files:forged('exponent', 2048, long),
      ['an RSA key of 2048 bits with an exponent of 33 bits'] = files:forged('odd', 2048, '100000001'),
    }
  end)
  teardown(function() files:remove() end)

  -- Asserts that `role` refuses the chain of the other side, with KEY_TOO_LARGE.
  local function refuses(demux, role, entry, how, ...)
    local bad = pair.as(entry, ...)
    local outcome
    if role == 'server' then
      outcome = pair.attempt(pair.with({ demux = demux, cert = plain.pem.cert, key = plain.pem.key, requestCert = true }, how),
        pair.with({ fingerprint = plain.fingerprint }, bad))
    else
      outcome = pair.attempt(pair.with({ demux = demux }, bad), pair.with({ servername = 'localhost' }, how))
    end
    local err = outcome[role]
    assert.equal('ERR_DTLS_CERTIFICATE', err.code)
    assert.equal('KEY_TOO_LARGE', err.reason)
  end

  pair.eachStrategy(function(demux)
    for _, name in ipairs(names) do
      it(('with %s is refused by a client whose verify mode is NONE'):format(name), loop.run(function()
        local context = assert(dtls.createContext('client', { fingerprint = plain.fingerprint }))
        assert(context:setVerify { mode = 'NONE' })
        local outcome = pair.attempt(pair.with({ demux = demux }, pair.as(keys[name])), { context = context })
        assert.equal('KEY_TOO_LARGE', type(outcome.client) == 'table' and outcome.client.reason)
        assert.not_equal(true, outcome.server)
      end))
    end

    for _, role in ipairs { 'server', 'client' } do
      it(('with too large a key in a certificate behind the peer\'s own is refused by a %s'):format(role), loop.run(function()
        for _, key in pairs(keys) do refuses(demux, role, plain, { ca = authority.pem.cert, rejectUnauthorized = false }, key) end
      end))

      for _, name in ipairs(names) do
        it(('with %s is refused by a %s, whether trusted, unauthorized or pinned'):format(name, role), loop.run(function()
          local entry = keys[name]
          for _, how in ipairs {
            { ca = authority.pem.cert }, { ca = authority.pem.cert, rejectUnauthorized = false }, { fingerprint = entry.fingerprint },
          } do
            refuses(demux, role, entry, how)
          end
        end))
      end
    end
  end)
end)
