-- Ed25519, Ed448 and RSA-PSS: as a server's only key libssl by itself refuses them over DTLS.

local dtls = require 'dtls'
local interop = require 'spec.support.interop'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local process = require 'spec.support.process'
local raw = require 'spec.support.raw'

-- By key type: openssl's name of the signature, a cipher suite for it, signature algorithms of other keys for that
-- suite.
local kinds = {
  ed25519 = { 'ed25519', 'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDSA+SHA256:ed448' },
  ed448 = { 'ed448', 'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDSA+SHA256:ed25519' },
  ['rsa-pss'] = { '[Rr][Ss][Aa][-_][Pp][Ss][Ss]%S*', 'ECDHE-RSA-AES128-GCM-SHA256', 'RSA+SHA256:rsa_pss_rsae_sha256' },
}

-- Asserts that an OpenSSL program has printed this certificate and the type of the peer's signature.
local function assertSeen(peer, cert, signature)
  peer.child:expect('(Peer signature type: ' .. signature .. '\n)')
  assert.truthy(peer.child.output.stdout:find(cert, 1, true), 'another certificate')
end

for kind, names in pairs(kinds) do
  local signature, suite, others = unpack(names)

  describe('with a key of type ' .. kind .. ' alone', function()
    local files, identities, plain

    setup(function()
      files = pki.new()
      local root = files:certificate('root', { authority = true })
      identities = {
        ['of our own'] = files:store('own', assert(dtls.selfSigned { type = kind })),
        ['of openssl'] = files:certificate('theirs', { type = kind, issuer = root }),
      }
      identities['of our own'].ca, identities['of openssl'].ca = identities['of our own'].cert, root.cert
      plain = files:certificate('plain', { issuer = root })
      plain.ca = root
    end)

    teardown(function() files:remove() end)

    for _, demux in ipairs { 'connected', 'shared' } do
      local function listen(identity)
        local _, events, port = interop.server('127.0.0.1', { cert = identity.pem.cert, key = identity.pem.key, demux = demux })
        return events, port
      end

      for _, origin in ipairs { 'of our own', 'of openssl' } do
        for _, tool in ipairs(peers.names) do
          local title = ('(%s) a server shows its certificate to %s and signs with it (%s sockets)'):format(origin, tool, demux)
          it(title, interop.run(function()
            local identity = identities[origin]
            local events, port = listen(identity)
            local peer = peers.client(tool, { ip = '127.0.0.1', port = port, ca = identity.ca, servername = 'localhost' })
            local conn, its = events:take 'connection'
            if tool == 'openssl' then assertSeen(peer, identity.pem.cert, signature) end
            assert.equal(suite, conn:getCipher().name)
            peer:send 'signed'
            assert.equal('signed\n', its:take 'message')
          end))
        end
      end

      it(('a server never signs with its placeholder certificate (%s sockets)'):format(demux), interop.run(function()
        local events, port = listen(identities['of our own'])
        local child = process.spawn('openssl', { 's_client', '-dtls1_2', '-connect', '127.0.0.1:' .. port, '-sigalgs', others })
        child:expect 'alert (handshake failure)'
        assert.equal('ERR_DTLS_PROTOCOL', events:take 'clientError'.code)
      end))
    end

    for _, origin in ipairs { 'of our own', 'of openssl' } do
      for _, tool in ipairs(peers.names) do
        it(('(%s) a client shows its certificate to %s and signs with it'):format(origin, tool), interop.run(function()
          local port, identity = raw.freePort '127.0.0.1', identities[origin]
          local peer = peers.server(tool, {
            ip = '127.0.0.1', port = port, cert = plain.cert, key = plain.key, ca = identity.ca, requireCert = true,
          })
          local conn, its = interop.client {
            host = '127.0.0.1', port = port, ca = plain.ca.pem.cert, servername = 'localhost', retransmitTimeout = 200,
            cert = identity.pem.cert, key = identity.pem.key,
          }
          its:take 'connection'
          if tool == 'openssl' then assertSeen(peer, identity.pem.cert, signature) end
          assert(conn:send 'signed\n')
          peer:receive 'signed'
        end))
      end
    end
  end)
end
