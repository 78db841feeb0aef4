-- A server whose only key is Ed25519, which libssl by itself refuses over DTLS.

local dtls = require 'dtls'
local interop = require 'spec.support.interop'
local peers = require 'spec.support.peers'
local pki = require 'spec.support.pki'
local process = require 'spec.support.process'

describe('a server with an Ed25519 key alone', function()
  local files, identity

  setup(function()
    files = pki.new()
    identity = files:store('ed25519', assert(dtls.selfSigned { type = 'ed25519' }))
  end)

  teardown(function() files:remove() end)

  for _, demux in ipairs { 'connected', 'shared' } do
    local function listen()
      local _, events, port = interop.server('127.0.0.1', { cert = identity.pem.cert, key = identity.pem.key, demux = demux })
      return events, port
    end

    it(('shows its certificate and signs with it (%s sockets)'):format(demux), interop.run(function()
      local events, port = listen()
      local peer = peers.client('openssl', { ip = '127.0.0.1', port = port, ca = identity.cert, servername = 'localhost' })
      local conn, its = events:take 'connection'
      peer.child:expect '(Peer signature type: ed25519)'
      assert.equal('ECDHE-ECDSA-AES128-GCM-SHA256', conn:getCipher().name)
      peer:send 'signed'
      assert.equal('signed\n', its:take 'message')
    end))

    it(('talks with gnutls (%s sockets)'):format(demux), interop.run(function()
      local events, port = listen()
      local peer = peers.client('gnutls', { ip = '127.0.0.1', port = port, ca = identity.cert, servername = 'localhost' })
      local _, its = events:take 'connection'
      peer:send 'signed'
      assert.equal('signed\n', its:take 'message')
    end))

    it(('never signs with the key that opens the suites (%s sockets)'):format(demux), interop.run(function()
      local events, port = listen()
      local child = process.spawn('openssl', {
        's_client', '-dtls1_2', '-connect', '127.0.0.1:' .. port, '-sigalgs', 'ECDSA+SHA256',
      })
      child:expect 'alert (handshake failure)'
      assert.equal('ERR_DTLS_PROTOCOL', events:take 'clientError'.code)
    end))
  end
end)
