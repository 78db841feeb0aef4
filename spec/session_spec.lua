-- Resumption: tickets and their keys, stored sessions, what a session is bound to, and for how long.

local uv = require 'luv'
local core = require 'dtls.core'
local dtls = require 'dtls'
local keys = require 'spec.support.keys'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

local NAMES = { 'a.example', 'b.example', 'localhost', '127.0.0.1' }
local identity = assert(dtls.selfSigned { altNames = NAMES })
local me = assert(dtls.selfSigned { commonName = 'me' })
local stranger = assert(dtls.selfSigned { commonName = 'stranger' })
local KEY, NEXT_KEY, LAST_KEY = ('1'):rep(80), ('2'):rep(80), ('3'):rep(80)

local with = pair.merged

local function listening(options, ip)
  return pair.listening(with({ cert = identity.cert, key = identity.key }, options), ip)
end

-- The options of a client that trusts our servers.
local function trusting(options)
  options = options or {}
  local says = options.ca or options.psk or options.context or options.fingerprint
  return with(not says and { fingerprint = identity.fingerprint } or nil, options)
end

-- Connects and takes leave. Returns whether a session was resumed, on which both sides agree, and what resumes this one.
local function visit(server, options)
  local conn, accepted = pair.open(server, nil, trusting(options))
  local reused, blob = conn:isSessionReused(), conn:getSession()
  assert.equal(reused, accepted:isSessionReused())
  pair.close(conn)
  return reused, blob
end

-- Something to resume with.
local function session(server, options)
  local reused, blob = visit(server, options)
  assert.is_false(reused)
  return (assert.is_string(blob))
end

local function resumes(server, blob, options)
  return (visit(server, with(options, { session = blob })))
end

-- Whether a client with these options asks to resume: then the session id in its hello is not empty. And the hello's
-- size, or nil when it comes in pieces.
local function offers(options)
  local nobody = raw.open()
  local conn = pair.client(nobody, trusting(options))
  loop.till(function() return nobody.inbox[1] end, 'a hello')
  pair.close(conn, nobody)
  local hello = nobody.inbox[1]
  local whole = hello:sub(15, 17) == hello:sub(23, 25)
  return hello:byte(60) > 0, whole and #hello or nil
end

-- Where the ASN.1 of a session says what it is bound to, and when it was made (SSL_SESSION_ASN1).
local BINDING, TIME = '\164\34\4\32', '\161\6\2\4'

local function found(blob, prefix)
  local _, last = blob:find(prefix, 1, true)
  return assert(last, 'there is no such field')
end

local function edited(blob, prefix, bytes)
  local last = found(blob, prefix)
  return blob:sub(1, last) .. bytes .. blob:sub(last + 1 + #bytes)
end

local function aged(blob, seconds)
  local last = found(blob, TIME)
  local time = 0
  for i = last + 1, last + 4 do time = time * 256 + blob:byte(i) end
  time = time - seconds
  local bytes = {}
  for i = 4, 1, -1 do
    bytes[i] = string.char(time % 256)
    time = math.floor(time / 256)
  end
  return edited(blob, TIME, table.concat(bytes))
end

-- The same session, bound to what the other one is bound to: what a client without our checks would offer.
local function rebound(blob, like)
  local last = found(like, BINDING)
  return edited(blob, BINDING, like:sub(last + 1, last + 32))
end

-- A store in memory that keeps what it was asked.
local function memory()
  local store = { sessions = {}, asked = {}, kept = {}, removed = {} }
  function store.get(id)
    store.asked[#store.asked + 1] = id
    return store.sessions[id]
  end
  function store.set(id, blob)
    store.kept[#store.kept + 1] = id
    store.sessions[id] = blob
  end
  function store.remove(id)
    store.removed[#store.removed + 1] = id
    store.sessions[id] = nil
  end
  return store
end

describe('a session', function()
  pair.eachStrategy(function(demux)
    for _, ip in ipairs(pair.addresses) do
      it('is resumed, which both sides know, on ' .. ip, loop.run(function()
        local server = pair.echo(listening({ demux = demux }, ip))
        local blob = session(server)
        local conn, accepted = pair.open(server, nil, { fingerprint = identity.fingerprint, session = blob })
        assert.is_true(conn:isSessionReused())
        assert.is_true(accepted:isSessionReused())
        assert.is_true(pair.roundTrip(conn, 'after'))
        pair.close(conn, server)
      end))
    end

    for what, options in pairs {
      ['with its ticket'] = { ticketKeys = KEY }, ['with a new ticket'] = { ticketKeys = { NEXT_KEY, KEY } },
      ['from a store'] = { sessionStore = memory() },
    } do
      it(('takes one round trip less, %s, whatever single datagram is lost on the way'):format(what), loop.run(function()
        local first = listening(with(options, { ticketKeys = KEY }))
        local blob = session(first)
        local function open(filter)
          local wait = filter and 50 * loop.patience or 60000
          local server = pair.echo(listening(with(options, { demux = demux, retransmitTimeout = wait })))
          local relay = proxy.new(server, { filter = filter })
          local conn, accepted = pair.open(server, relay, trusting { session = blob, retransmitTimeout = wait })
          assert.is_true(conn:isSessionReused())
          assert.is_true(accepted:isSessionReused())
          assert.equal(what == 'with a new ticket', conn:getSession() ~= blob)
          assert.is_true(pair.roundTrip(conn, 'made it'))
          local sent = { server = #relay.recorded.server, client = #relay.recorded.client }
          pair.close(conn, relay, server)
          return sent
        end
        -- hello, hello with cookie, Finished, message; HelloVerifyRequest, the server's flight, message
        assert.same({ server = 4, client = 3 }, open())
        for direction, count in pairs { server = 3, client = 2 } do
          for index = 1, count do
            local sent = open(proxy.filters.without(direction, index))
            assert.is_true(sent.server + sent.client > 7, direction .. index)
          end
        end
        pair.close(first)
      end))
    end
  end)

  it('is announced to a client that has nothing to resume with, after `connection`', loop.run(function()
    local server = listening()
    local conn = pair.client(server, { fingerprint = identity.fingerprint })
    local heard = pair.record(conn, 'connection', 'session')
    assert.is_nil(conn:getSession())
    assert.is_false(conn:isSessionReused())
    local blob = heard.wait 'session'[2]
    assert.equal('connection session', heard.names())
    assert.equal(blob, conn:getSession())
    pair.close(conn)
    assert.is_nil(conn:getSession())
    assert.is_true(resumes(server, blob))
    pair.close(server)
  end))

  it('is not announced again when it was resumed as it is', loop.run(function()
    local server = pair.echo(listening())
    local blob = session(server)
    local conn = pair.client(server, { fingerprint = identity.fingerprint, session = blob })
    local heard = pair.record(conn, 'connection', 'session')
    heard.wait 'connection'
    assert.is_true(conn:isSessionReused())
    assert.equal(blob, conn:getSession())
    assert.is_true(pair.roundTrip(conn, 'a fence'))
    assert.equal('connection', heard.names())
    pair.close(conn, server)
  end))

  for _, way in ipairs { 'close', 'destroy' } do
    it(('may be announced to a listener that makes the connection %s'):format(way), loop.run(function()
      local server = listening()
      local conn = pair.client(server, trusting())
      local blob
      conn:on('session', function(each)
        blob = each
        conn[way](conn)
      end)
      local heard = pair.record(conn, 'connection', 'error', 'close')
      heard.wait 'close'
      assert.equal('connection close', heard.names())
      assert.is_true(resumes(server, blob))
      pair.close(server)
    end))
  end

  it('is not announced when a listener has closed the connection before', loop.run(function()
    local server = listening()
    local conn = pair.client(server, trusting())
    conn:on('connection', function() conn:close() end)
    local heard = pair.record(conn, 'session', 'error', 'close')
    heard.wait 'close'
    assert.equal('close', heard.names())
    pair.close(server)
  end))

  it('can be resumed more than once, also while it is in use', loop.run(function()
    local server = listening()
    local blob = session(server)
    local options = { fingerprint = identity.fingerprint, session = blob }
    local first, second = pair.open(server, nil, options), pair.open(server, nil, options)
    assert.is_true(first:isSessionReused())
    assert.is_true(second:isSessionReused())
    assert.not_equal(first:exportKeyingMaterial(32, 'EXPERIMENTAL a spec'), second:exportKeyingMaterial(32, 'EXPERIMENTAL a spec'))
    pair.close(first, second, server)
  end))

  it('is not there before the handshake is complete, on either side, also when one is being resumed', loop.run(function()
    local server = listening()
    local blob = session(server)
    local conn = pair.client(server, { fingerprint = identity.fingerprint, session = blob })
    local early
    server:on('accept', function(accepted) early = { client = conn:getSession() == nil, server = accepted:getSession() == nil } end)
    loop.event(conn, 'connection')
    assert.same({ client = true, server = true }, early)
    assert.equal(blob, conn:getSession())
    pair.close(conn, server)
  end))

  it('is kept by the client alone where the server gives tickets', loop.run(function()
    local server = listening()
    local conn, accepted = pair.open(server, nil, { fingerprint = identity.fingerprint })
    assert.is_nil(accepted:getSession())
    local heard = pair.record(accepted, 'session')
    assert.is_string(conn:getSession())
    assert.equal('', heard.names())
    pair.close(conn, server)
  end))

  for _, side in ipairs { 'server', 'client' } do
    it('does not come about with NO_TICKET on the ' .. side, loop.run(function()
      local without = { options = { 'NO_TICKET' } }
      local server = pair.echo(listening(side == 'server' and without or nil))
      local conn = pair.client(server, trusting(side == 'client' and without or nil))
      local heard = pair.record(conn, 'connection', 'session')
      heard.wait 'connection'
      assert.is_nil(conn:getSession())
      assert.is_true(pair.roundTrip(conn, 'a fence'))
      assert.equal('connection', heard.names())
      pair.close(conn, server)
    end))
  end

  it('that is no session is refused by connect', loop.run(function()
    local server = listening()
    local blob = session(server)
    for _, garbage in ipairs { '', 'garbage', blob .. 'x', blob:sub(1, -2), blob:sub(2), ('\0'):rep(#blob) } do
      local conn, err = dtls.connect { host = server.ip, port = server.port, fingerprint = identity.fingerprint, session = garbage }
      assert.is_nil(conn)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.matches('^session: ', err.message)
    end
    assert.error_matches(function() dtls.connect { host = server.ip, port = server.port, session = 5 } end, "option 'session'")
    pair.close(server)
  end))
end)

describe('a client that changes how it verifies, after it was made,', function()
  -- A connection whose hello is not answered before the test says so, with an association already.
  local function held(server, options)
    local open = false
    local between = proxy.new(server, { filter = function(_, _, data) return open and data or nil end })
    local conn = pair.client(between, with(options, { retransmitTimeout = 20 }))
    local heard = pair.record(conn, 'connection', 'error')
    loop.till(function() return #between.recorded.server > 0 end, 'a hello')
    return conn, heard, between, function() open = true end
  end

  it('keeps no session', loop.run(function()
    local server = listening()
    local conn, heard, between, go = held(server, { ca = stranger.cert, servername = 'localhost' })
    assert(conn:setVerify { mode = 'NONE' })
    go()
    heard.wait 'connection'
    assert.is_nil(conn:getSession())
    pair.close(conn, server, between)
  end))

  it('does not let in, by a session, whom it would not trust now', loop.run(function()
    local server = listening()
    local lax = { ca = stranger.cert, servername = 'localhost', rejectUnauthorized = false }
    local blob = session(server, lax)
    assert.is_true(resumes(server, blob, lax))
    local conn, heard, between, go = held(server, with(lax, { session = blob }))
    assert(conn:setVerify { mode = 'PEER' })
    go()
    assert.equal('ERR_DTLS_CERTIFICATE', heard.wait 'error'[2].code)
    assert.is_nil(heard.find 'connection')
    pair.close(conn, server, between)
  end))
end)

describe('what a resumed session carries on:', function()
  it('the certificates of both sides and what was found out about them', loop.run(function()
    local server = listening { requestCert = true, ca = me.cert }
    local options = { fingerprint = identity.fingerprint, cert = me.cert, key = me.key }
    local blob = session(server, options)
    local conn, accepted = pair.open(server, nil, with(options, { session = blob }))
    assert.is_true(conn:isSessionReused())
    assert.same({ true }, pair.verdict(conn))
    assert.same({ true }, pair.verdict(accepted))
    assert.equal(identity.fingerprint, conn:getPeerCertificate().fingerprint256)
    assert.equal(me.fingerprint, accepted:getPeerCertificate().fingerprint256)
    pair.close(conn, server)
  end))

  it('that a peer is not authorized, and why', loop.run(function()
    local server = listening { requestCert = true, ca = me.cert, rejectUnauthorized = false }
    local options = { ca = me.cert, rejectUnauthorized = false, cert = stranger.cert, key = stranger.key }
    local blob = session(server, options)
    local conn, accepted = pair.open(server, nil, with(options, { session = blob }))
    assert.is_true(conn:isSessionReused())
    assert.same({ false, 'DEPTH_ZERO_SELF_SIGNED_CERT' }, pair.verdict(conn))
    assert.same({ false, 'DEPTH_ZERO_SELF_SIGNED_CERT' }, pair.verdict(accepted))
    pair.close(conn, server)
  end))

  it('that a peer without a certificate is not authorized', loop.run(function()
    local server = listening { requestCert = true, ca = me.cert, rejectUnauthorized = false }
    local blob = session(server)
    local conn, accepted = pair.open(server, nil, { fingerprint = identity.fingerprint, session = blob })
    assert.is_true(conn:isSessionReused())
    assert.same({ false, 'NO_PEER_CERTIFICATE' }, pair.verdict(accepted))
    pair.close(conn, server)
  end))

  it('who a client with a pre-shared key is', loop.run(function()
    local server = pair.listening { psk = { alice = 'her key', bob = 'his key' } }
    local options = { psk = { identity = 'bob', key = 'his key' } }
    local blob = session(server, options)
    local conn, accepted = pair.open(server, nil, with(options, { session = blob }))
    assert.is_true(conn:isSessionReused())
    assert.equal('bob', accepted.pskIdentity)
    assert.equal('bob', conn.pskIdentity)
    assert.is_true(conn.authorized)
    assert.is_true(accepted.authorized)
    pair.close(conn, server)
  end))

  it('the name that the client asked for', loop.run(function()
    local server = listening()
    local options = { fingerprint = identity.fingerprint, servername = 'a.example' }
    local blob = session(server, options)
    local conn, accepted = pair.open(server, nil, with(options, { session = blob }))
    assert.is_true(conn:isSessionReused())
    assert.equal('a.example', accepted.servername)
    assert.equal('a.example', conn.servername)
    pair.close(conn, server)
  end))

  it('but the application protocol is agreed on anew', loop.run(function()
    local server = listening { ALPNProtocols = { 'coap', 'chat' } }
    local blob = session(server, { ALPNProtocols = { 'chat' } })
    for _, protocol in ipairs { 'coap', 'chat' } do
      local conn, accepted = pair.open(server, nil, { fingerprint = identity.fingerprint, ALPNProtocols = { protocol }, session = blob })
      assert.is_true(conn:isSessionReused())
      assert.equal(protocol, conn.alpnProtocol)
      assert.equal(protocol, accepted.alpnProtocol)
      pair.close(conn)
    end
    pair.close(server)
  end))

  it('and the extended master secret', loop.run(function()
    local server = listening()
    local blob = session(server)
    local conn, accepted = pair.open(server, nil, { fingerprint = identity.fingerprint, session = blob })
    assert.is_true(conn:isSessionReused())
    assert.is_true(conn.extendedMasterSecret)
    assert.is_true(accepted.extendedMasterSecret)
    pair.close(conn, server)
  end))
end)

describe('ticket keys', function()
  local function announced(server, options)
    local conn = pair.client(server, trusting(options))
    local heard = pair.record(conn, 'connection', 'session')
    local accepted
    server:once('connection', function(each) accepted = each end)
    loop.till(function() return accepted and heard.find 'connection' end, 'both ends to open')
    local reused, renewed = conn:isSessionReused(), heard.find 'session'
    pair.close(conn)
    return reused, renewed and renewed[2]
  end

  it('in common let one server resume what another one began', loop.run(function()
    local one, other = listening { ticketKeys = KEY }, listening { ticketKeys = { KEY } }
    assert.is_true(resumes(other, session(one)))
    assert.is_true(resumes(one, session(other)))
    pair.close(one, other)
  end))

  it('are random by default: another server does a full handshake', loop.run(function()
    local one, other = listening(), listening()
    local blob = session(one)
    assert.is_false(resumes(other, blob))
    assert.is_true(resumes(one, blob))
    pair.close(one, other)
  end))

  it('belong to a context, whatever servers use it', loop.run(function()
    local context = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))
    local one, other = pair.listening { context = context }, pair.listening { context = context }
    assert.is_true(resumes(other, session(one)))
    pair.close(one, other)
  end))

  it('rotate: the previous one still opens, and the client gets a ticket under the current one', loop.run(function()
    local server = listening { ticketKeys = KEY }
    local blob = session(server)
    assert.same({ true, nil }, { announced(server, { session = blob }) })
    assert.is_true(server:setTicketKeys { NEXT_KEY, KEY })
    local reused, renewed = announced(server, { session = blob })
    assert.is_true(reused)
    assert.is_string(renewed)
    assert.not_equal(blob, renewed)
    assert.same({ true, nil }, { announced(server, { session = renewed }) })
    assert.is_true(server:setTicketKeys { LAST_KEY, NEXT_KEY })
    assert.is_false((announced(server, { session = blob })))
    assert.is_true((announced(server, { session = renewed })))
    assert.is_true(server:setTicketKeys(KEY))
    assert.is_true((announced(server, { session = blob })))
    assert.is_false((announced(server, { session = renewed })))
    pair.close(server)
  end))

  it('protect the ticket: one with a bit changed anywhere is no ticket', loop.run(function()
    local server = listening { ticketKeys = KEY }
    local blob = session(server)
    local ticket = assert(blob:find(KEY:sub(1, 16), 1, true)) -- it begins with the name of its key
    local size = blob:byte(ticket - 1)
    assert.is_true(size > 16 + 16 + 32)
    assert.is_true(resumes(server, blob))
    for _, offset in ipairs { 0, 15, 16, 31, 32, 100, size - 33, size - 32, size - 1 } do
      local at = ticket + offset
      local changed = blob:sub(1, at - 1) .. string.char((blob:byte(at) + 1) % 256) .. blob:sub(at + 1)
      assert.is_true((offers { session = changed }))
      assert.is_false(resumes(server, changed))
    end
    pair.close(server)
  end))

  it('may be given as {current, previous} from the start', loop.run(function()
    local old, new = listening { ticketKeys = KEY }, listening { ticketKeys = { NEXT_KEY, KEY } }
    local blob = session(old)
    local reused, renewed = announced(new, { session = blob })
    assert.is_true(reused)
    assert.is_false(resumes(old, renewed))
    assert.is_true(resumes(new, renewed))
    pair.close(old, new)
  end))

  it('can be set on a context, before and after it serves', loop.run(function()
    local context = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))
    assert.is_true(context:setTicketKeys(KEY))
    local one, other = pair.listening { context = context }, listening { ticketKeys = KEY }
    local blob = session(other)
    assert.is_true(resumes(one, blob))
    assert.is_true(context:setTicketKeys(NEXT_KEY))
    assert.is_false(resumes(one, blob))
    pair.close(one, other)
  end))

  it('may be set on a server before it listens, and go with its context', loop.run(function()
    local server = pair.server { cert = identity.cert, key = identity.key }
    assert.is_true(server:setTicketKeys(KEY))
    assert(server:listen(0, '127.0.0.1'))
    server.ip, server.port = '127.0.0.1', server:address().port
    local other = listening { ticketKeys = KEY }
    local blob = session(other)
    assert.is_true(resumes(server, blob))
    assert.is_true(server:setContext { cert = identity.cert, key = identity.key })
    assert.is_true(resumes(server, blob))
    assert.is_true(server:setContext(assert(dtls.createContext('server', { cert = identity.cert, key = identity.key }))))
    assert.is_false(resumes(server, blob))
    assert.is_true(server:setTicketKeys(KEY))
    assert.is_true(resumes(server, blob))
    pair.close(server, other)
  end))

  it('have 80 bytes, and there are one or two', loop.run(function()
    local server = listening { ticketKeys = KEY }
    local blob = session(server)
    local context = assert(dtls.createContext('server', { cert = identity.cert, key = identity.key, ticketKeys = KEY }))
    for _, wrong in ipairs { '', KEY:sub(2), KEY .. 'x', { KEY, 'short' }, { 'short', KEY }, {}, { KEY, NEXT_KEY, LAST_KEY } } do
      for _, call in ipairs {
        function() return dtls.createServer { cert = identity.cert, key = identity.key, ticketKeys = wrong } end,
        function() return dtls.createContext('server', { cert = identity.cert, key = identity.key, ticketKeys = wrong }) end,
        function() return server:setTicketKeys(wrong) end,
        function() return context:setTicketKeys(wrong) end,
      } do
        local ok, err = call()
        assert.is_nil(ok)
        assert.equal('ERR_DTLS_CONFIG', err.code)
        assert.matches('[tT]icketKeys', err.message)
      end
    end
    assert.is_true(resumes(server, blob))
    for _, wrong in ipairs { 80, true, { 80 } } do
      assert.has_error(function() dtls.createServer { cert = identity.cert, key = identity.key, ticketKeys = wrong } end)
      assert.has_error(function() server:setTicketKeys(wrong) end)
      assert.has_error(function() context:setTicketKeys(wrong) end)
    end
    pair.close(server)
  end))

  it('are checked by the core, too, which keeps the old ones', loop.run(function()
    local context = assert(core.context('server', { cert = { identity.cert }, key = { identity.key }, ticket_keys = { KEY } }))
    for _, wrong in ipairs { {}, { 'short' }, { NEXT_KEY, 'short' }, { NEXT_KEY, LAST_KEY, KEY } } do
      local ok, err = context:set_ticket_keys(wrong)
      assert.is_nil(ok)
      assert.equal('ERR_DTLS_CONFIG', err.code)
    end
    assert.is_true(context:set_ticket_keys { NEXT_KEY, KEY })
  end))

  it('are no option of a client', loop.run(function()
    local context = assert(dtls.createContext('client', { fingerprint = identity.fingerprint }))
    local ok, err = context:setTicketKeys(KEY)
    assert.is_nil(ok)
    assert.equal('ERR_DTLS_CONFIG', err.code)
  end))
end)

describe('a session is not offered by a client with another', function()
  local base = { ca = identity.cert, servername = 'a.example' }
  local function but(options) return with(base, options) end
  local function context(options, verify)
    local made = assert(dtls.createContext('client', with({ ca = identity.cert }, options)))
    if verify then assert(made:setVerify(verify)) end
    return { context = made, servername = 'a.example' }
  end
  local AES, CHACHA = 'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-CHACHA20-POLY1305'
  local cases = {
    { 'name', base, but { servername = 'b.example' } },
    { 'name, when it had none', but { servername = '', fingerprint = identity.fingerprint, rejectUnauthorized = false },
      but { fingerprint = identity.fingerprint, rejectUnauthorized = false } },
    { 'sessionIdContext', base, but { sessionIdContext = 'this one' } },
    { 'list of authorities', base, but { ca = { identity.cert, stranger.cert } } },
    { 'fingerprint', but { fingerprint = { identity.fingerprint, stranger.fingerprint } }, but { fingerprint = identity.fingerprint } },
    { 'wish to verify', but { rejectUnauthorized = false }, base },
    { 'wish to verify, set on the context', context({}, { mode = 'NONE' }), context {} },
    { 'limit to chains', context({}, { depth = 5 }), context({}, { depth = 1 }) },
    { 'way to check the name', but { checkServerIdentity = function() end }, base },
    { 'wish to check more than the name', base, but { checkServerIdentity = function() end } },
    { 'pre-shared key', but { psk = { identity = 'alice', key = 'her key' } }, but { psk = { identity = 'bob', key = 'his key' } } },
    { 'way to pre-shared keys', but { psk = { identity = 'alice', key = 'her key' } },
      but { psk = function() return 'alice', 'her key' end } },
    { 'list of suites', but { ciphers = AES .. ':' .. CHACHA }, but { ciphers = CHACHA } },
  }

  for _, case in ipairs(cases) do
    local what, made, used = unpack(case)
    it(what .. '; there is a full handshake', loop.run(function()
      local server = listening { psk = { alice = 'her key', bob = 'his key' } }
      local blob = session(server, made)
      assert.is_true((offers(with(made, { session = blob }))))
      assert.is_true(resumes(server, blob, made))
      assert.is_false((offers(with(used, { session = blob }))))
      assert.is_false(resumes(server, blob, used))
      pair.close(server)
    end))
  end

  it('name: that of the certificate is checked then, and found to be another', loop.run(function()
    local server = listening()
    local blob = session(server, { ca = identity.cert, servername = 'c.example', checkServerIdentity = function() end })
    for _, options in ipairs { { servername = 'c.example' }, { servername = 'd.example' } } do
      local conn = pair.client(server, with({ ca = identity.cert, session = blob }, options))
      local heard = pair.record(conn, 'error', 'connection', 'close')
      assert.equal('HOSTNAME_MISMATCH', heard.wait 'error'[2].reason)
      heard.wait 'close'
      assert.equal('error close', heard.names())
    end
    pair.close(server)
  end))

  it('list of authorities: who nobody vouches for is refused', loop.run(function()
    local server = listening()
    local blob = session(server, { ca = stranger.cert, rejectUnauthorized = false })
    local conn = pair.client(server, { ca = stranger.cert, session = blob })
    local heard = pair.record(conn, 'error', 'connection', 'close')
    assert.equal('DEPTH_ZERO_SELF_SIGNED_CERT', heard.wait 'error'[2].reason)
    heard.wait 'close'
    assert.equal('error close', heard.names())
    pair.close(server)
  end))

  it('name, unless the name is only spelled in other letters', loop.run(function()
    local server = listening()
    local blob = session(server, { ca = identity.cert, servername = 'a.example' })
    assert.is_true(resumes(server, blob, { ca = identity.cert, servername = 'A.Example' }))
    pair.close(server)
  end))
end)

describe('an option of a context', function()
  -- What decides who may connect: its sessions are another option's no longer, see the tests before and after this one.
  local bound = {
    ca = true, crl = true, fingerprint = true, requestCert = true, rejectUnauthorized = true, checkServerIdentity = true,
    allowPartialTrustChain = true, verifyTime = true, psk = true, sessionIdContext = true, ciphers = true, groups = true, sigalgs = true,
    maxFragmentLength = true, rawPublicKey = true, peerPublicKey = true,
  }
  -- What a resumed handshake negotiates anew, or what says nothing of the peer.
  local free = {
    cert = true, key = true, passphrase = true, minVersion = true, maxVersion = true, pskIdentityHint = true, ALPNProtocols = true,
    srtpProfiles = true, ticketKeys = true, sessionTimeout = true, keylog = true, options = true, modes = true,
  }

  it('either binds sessions (identity_context in lua/dtls/context.lua, and C) or says nothing of who may connect', function()
    assert.same(keys(require('dtls.options').credentials), keys(bound, free))
  end)
end)

describe('a server does a full handshake for a session of another', function()
  local function listens(options)
    return listening(with({ ticketKeys = KEY }, options))
  end

  -- What a client's own checks would keep from the server.
  local own = { cert = identity.cert, key = identity.key }
  for what, options in pairs {
    ['name, with one identity for all'] = {},
    ['name, with one identity for all by sni'] = { sni = { ['*'] = own } },
    ['name, with an identity for each'] = { sni = { ['a.example'] = own, ['b.example'] = with(own, { ALPNProtocols = 'b' }) } },
    ['name, with identities that a function knows'] = { SNICallback = function() return own end },
    ['name, with a store'] = { sessionStore = memory() },
    ['name, with a store and sni'] = { sessionStore = memory(), sni = { ['*'] = own } },
  } do
    pair.eachStrategy(function(demux)
      it(what, loop.run(function()
        local server = listens(with(options, { demux = demux }))
        local a, b, none = { servername = 'a.example' }, { servername = 'b.example' }, { servername = '' }
        local ofA, ofB, ofNone = session(server, a), session(server, b), session(server, none)
        assert.is_true(resumes(server, ofA, a))
        assert.is_true(resumes(server, ofB, b))
        assert.is_true(resumes(server, ofNone, none))
        assert.is_false(resumes(server, ofA, b))
        for _, case in ipairs { { ofA, ofB, b }, { ofB, ofA, a }, { ofNone, ofA, a }, { ofA, ofNone, none } } do
          local blob, like, asked = unpack(case)
          local forged = with(asked, { session = rebound(blob, like) })
          assert.is_true((offers(forged)))
          assert.is_false((visit(server, forged)))
        end
        pair.close(server)
      end))
    end)
  end

  local mine = { cert = me.cert, key = me.key }
  local alice = { psk = { identity = 'alice', key = 'her key' } }
  for _, case in ipairs {
    { 'sessionIdContext', { sessionIdContext = 'one' }, { sessionIdContext = 'other' }, mine },
    { 'list of authorities', { requestCert = true, ca = me.cert }, { requestCert = true, ca = { me.cert, stranger.cert } }, mine },
    { 'fingerprint', { requestCert = true, fingerprint = me.fingerprint },
      { requestCert = true, fingerprint = { me.fingerprint, stranger.fingerprint } }, mine },
    { 'mind about certificates, asking for none', {}, { requestCert = true, ca = me.cert }, mine },
    { 'mind about certificates, asking for one', { requestCert = true, ca = me.cert }, {}, mine },
    { 'mind about verification, doing without', { requestCert = true, ca = me.cert, rejectUnauthorized = false },
      { requestCert = true, ca = me.cert }, mine },
    { 'mind about verification, insisting', { requestCert = true, ca = me.cert },
      { requestCert = true, ca = me.cert, rejectUnauthorized = false }, mine },
    { 'mind about where a chain may end', { requestCert = true, ca = me.cert, allowPartialTrustChain = true },
      { requestCert = true, ca = me.cert }, mine },
    { 'mind about dates, not checking them', { requestCert = true, ca = me.cert, verifyTime = false },
      { requestCert = true, ca = me.cert }, mine },
    { 'mind about dates, at another time', { requestCert = true, ca = me.cert, verifyTime = os.time() },
      { requestCert = true, ca = me.cert, verifyTime = os.time() + 60 }, mine },
    { 'list of pre-shared keys', { psk = { alice = 'her key' } }, { psk = { alice = 'her key', bob = 'his key' } }, alice },
    { 'way to pre-shared keys', { psk = { alice = 'her key' } }, { psk = function() return 'her key' end }, alice },
    { 'list of suites', {}, { ciphers = 'ECDHE-ECDSA-CHACHA20-POLY1305' }, mine },
  } do
    local what, made, used, client = unpack(case)
    it(what, loop.run(function()
      local one, same, other = listens(made), listens(made), listens(used)
      local blob = session(one, client)
      assert.is_true(resumes(same, blob, client))
      assert.is_false(resumes(other, blob, client))
      pair.close(one, same, other)
    end))

    it(what .. ', after setContext', loop.run(function()
      local server = listens(made)
      local blob = session(server, client)
      local function change(options)
        local all = with({ cert = identity.cert, key = identity.key, ticketKeys = KEY }, options)
        assert(server:setContext(assert(dtls.createContext('server', all))))
      end
      change(used)
      assert.is_false(resumes(server, blob, client))
      change(made)
      assert.is_true(resumes(server, blob, client))
      pair.close(server)
    end))
  end

  it('mind about verification, set for one connection', loop.run(function()
    local server = listens { ca = me.cert }
    local blob = session(server, mine)
    server:once('accept', function(conn) assert(conn:setVerify { mode = { 'PEER', 'FAIL_IF_NO_PEER_CERT' } }) end)
    local conn, accepted = pair.open(server, nil, trusting(with(mine, { session = blob })))
    assert.is_false(conn:isSessionReused())
    assert.same({ true }, pair.verdict(accepted))
    pair.close(conn)
    assert.is_true(resumes(server, blob, mine))
    pair.close(server)
  end))

  it('mind about suites, set for one connection', loop.run(function()
    local server = listens()
    local blob = session(server)
    server:once('accept', function(conn) assert(conn:setCiphers 'ECDHE-ECDSA-CHACHA20-POLY1305') end)
    local conn = pair.open(server, nil, trusting { session = blob })
    assert.is_false(conn:isSessionReused())
    assert.equal('ECDHE-ECDSA-CHACHA20-POLY1305', conn:getCipher().name)
    pair.close(conn)
    assert.is_true(resumes(server, blob))
    pair.close(server)
  end))

  local function refusal(server, options)
    local refused = pair.record(server, 'clientError', 'connection')
    local conn = pair.client(server, trusting(with({ retransmitTimeout = 30 }, options)))
    local err = refused.wait 'clientError'[2]
    pair.close(conn)
    assert.is_nil(refused.find 'connection')
    return err
  end

  it('mind about verification, and whom it does not trust it refuses', loop.run(function()
    local lenient = listens { requestCert = true, ca = me.cert, rejectUnauthorized = false }
    local strict = listens { requestCert = true, ca = me.cert }
    local alien = { cert = stranger.cert, key = stranger.key }
    local blob = session(lenient, alien)
    assert.is_true(resumes(lenient, blob, alien))
    assert.equal('ERR_DTLS_CERTIFICATE', refusal(strict, with(alien, { session = blob })).code)
    local nobody = session(lenient)
    assert.equal('ERR_DTLS_CERTIFICATE', refusal(strict, { session = nobody }).code)
    pair.close(lenient, strict)
  end))

  it('list of pre-shared keys, and whom it knows no longer it refuses', loop.run(function()
    local one, other = listens { psk = { alice = 'her key' } }, listens { psk = { bob = 'his key' } }
    local blob = session(one, alice)
    assert.equal('ERR_DTLS_PSK_IDENTITY', refusal(other, with(alice, { session = blob })).code)
    pair.close(one, other)
  end))
end)

describe('a session is bound to the revocation lists', function()
  local files, root, leaf, crl

  setup(function()
    files = pki.new()
    root = files:certificate('root', { authority = true })
    leaf = files:certificate('leaf', { issuer = root, altNames = NAMES })
    crl = files:crl('crl', root, {})
  end)

  teardown(function() files:remove() end)

  it('of the client', loop.run(function()
    local server = pair.listening { cert = leaf.pem.cert, key = leaf.pem.key }
    local made = { ca = root.pem.cert, servername = 'a.example' }
    local used = with(made, { crl = crl })
    local blob = session(server, made)
    assert.is_true(resumes(server, blob, made))
    assert.is_false((offers(with(used, { session = blob }))))
    assert.is_false(resumes(server, blob, used))
    pair.close(server)
  end))

  it('of the server, so that whose certificate was revoked is refused', loop.run(function()
    local policy = { ticketKeys = KEY, requestCert = true, ca = root.pem.cert }
    local one, other = listening(policy), listening(with(policy, { crl = crl }))
    local revoking = listening(with(policy, { crl = files:crl('later', root, { leaf }) }))
    local client = { cert = leaf.pem.cert, key = leaf.pem.key }
    local blob = session(one, client)
    assert.is_true(resumes(one, blob, client))
    assert.is_false(resumes(other, blob, client))
    local refused = pair.record(revoking, 'clientError', 'connection')
    local conn = pair.client(revoking, trusting(with(client, { session = blob, retransmitTimeout = 30 })))
    assert.equal('CERT_REVOKED', refused.wait 'clientError'[2].reason)
    assert.is_nil(refused.find 'connection')
    pair.close(conn, one, other, revoking)
  end))
end)

describe('the life of a session', function()
  local SHORT = 1000

  it('ends on the server after sessionTimeout', loop.run(function()
    local server = listening { sessionTimeout = SHORT, ticketKeys = KEY }
    local blob = session(server)
    assert.is_true(resumes(server, blob))
    loop.again(function() return not resumes(server, blob) end, 'the end of the session')
    assert.is_true((offers { session = blob }))
    pair.close(server)
  end))

  it('is not prolonged by tickets under new keys', loop.run(function()
    local server = listening { sessionTimeout = SHORT, ticketKeys = KEY }
    local blob = session(server)
    local key, count, renewals = KEY, 0, 0
    loop.again(function()
      count = count + 1
      local next_key = ('%016d'):format(count):rep(5)
      assert(server:setTicketKeys { next_key, key })
      key = next_key
      local reused, newer = visit(server, { session = blob })
      assert.not_equal(blob, newer)
      if reused then renewals = renewals + 1 end
      blob = newer
      return not reused
    end, 'the end of the session')
    assert.is_true(renewals > 0)
    pair.close(server)
  end))

  it('ends with random keys, too, however often they are replaced', loop.run(function()
    local server = listening { sessionTimeout = SHORT }
    local blob = session(server)
    loop.again(function()
      local reused
      reused, blob = visit(server, { session = blob })
      return not reused
    end, 'the end of the session')
    assert.is_true(resumes(server, blob))
    pair.close(server)
  end))

  it('ends on the client after its sessionTimeout: it is not offered any more', loop.run(function()
    local server = listening()
    local options = { sessionTimeout = SHORT }
    options.session = session(server, options)
    assert.is_true((offers(options)))
    loop.again(function() return not offers(options) end, 'the end of the session')
    assert.is_false((visit(server, options)))
    pair.close(server)
  end))

  it('is five minutes unless said otherwise', loop.run(function()
    local server = listening()
    local blob = session(server)
    assert.is_true((offers { session = aged(blob, 240) }))
    assert.is_false((offers { session = aged(blob, 300) }))
    assert.is_false((visit(server, { session = aged(blob, 300) })))
    pair.close(server)
  end))

  for what, options in pairs {
    ['for every name'] = { sni = { ['*'] = { cert = identity.cert, key = identity.key } } },
    ['without names'] = {},
  } do
    it('is also how long the server keeps a random key for new tickets, ' .. what, loop.run(function()
      local server = listening(with(options, { sessionTimeout = SHORT }))
      local there = { servername = 'a.example' }
      local blob = session(server, there)
      loop.again(function()
        local reused, newer = visit(server, with(there, { session = blob }))
        local renewed = reused and newer ~= blob
        blob = newer
        return renewed
      end, 'a ticket under a new key')
      pair.close(server)
    end))
  end

  it('has not begun in the future', loop.run(function()
    local server = listening()
    local blob = session(server)
    assert.is_false((offers { session = aged(blob, -1000) }))
    assert.is_false((visit(server, { session = aged(blob, -1000) })))
    pair.close(server)
  end))

  it('is between a second and a day', loop.run(function()
    local own = { cert = identity.cert, key = identity.key, ca = identity.cert }
    for _, role in ipairs { 'server', 'client' } do
      for _, good in ipairs { 1000, 24 * 60 * 60 * 1000 } do
        assert(dtls.createContext(role, with(own, { sessionTimeout = good })))
      end
      for _, wrong in ipairs { 999, 0, -1000, 1000.5, 24 * 60 * 60 * 1000 + 1, math.huge, 0 / 0 } do
        local made, err = dtls.createContext(role, with(own, { sessionTimeout = wrong }))
        assert.is_nil(made)
        assert.equal('ERR_DTLS_CONFIG', err.code)
        assert.matches('sessionTimeout', err.message)
      end
      assert.error_matches(function() dtls.createContext(role, with(own, { sessionTimeout = '1000' })) end, 'sessionTimeout')
    end
  end))
end)

describe('a ticket that would not fit the hello\'s datagram', function()
  local names = {}
  for i = 1, 40 do names[i] = ('name-number-%d.of.many.example'):format(i) end
  local big = assert(dtls.selfSigned { commonName = 'big', altNames = names })

  it('is not offered; there is a full handshake', loop.run(function()
    local server = listening { requestCert = true, fingerprint = { big.fingerprint, me.fingerprint } }
    local small = { cert = me.cert, key = me.key }
    local large = { cert = big.cert, key = big.key }
    local fitting, blob = session(server, small), session(server, large)
    local offered, size = offers(with(small, { session = fitting }))
    assert.is_true(offered)
    assert.is_true(size <= 1228)
    assert.is_false((offers(with(large, { session = blob }))))
    local conn, accepted = pair.open(server, nil, trusting(with(large, { session = blob })))
    assert.is_false(conn:isSessionReused())
    assert.is_true(accepted.authorized)
    pair.close(conn, server)
  end))

  it('is offered where datagrams may be larger', loop.run(function()
    local server = listening { requestCert = true, fingerprint = big.fingerprint, mtu = 4000 }
    local options = { cert = big.cert, key = big.key, mtu = 4000 }
    options.session = session(server, options)
    local offered, size = offers(options)
    assert.is_true(offered)
    assert.is_true(size > 1228)
    assert.is_true((visit(server, options)))
    options.mtu, options.linkMtu = nil, 4000
    assert.is_true((visit(server, options)))
    pair.close(server)
  end))

  for _, kind in ipairs { 'mtu', 'linkMtu' } do
    it('is not offered where they must be smaller, by ' .. kind, loop.run(function()
      local server = pair.echo(listening())
      local blob = session(server)
      local offered = {}
      for limit = 300, 1000, 20 do
        local asks, size = offers { session = blob, [kind] = limit }
        offered[asks and 'yes' or 'no'] = true
        -- The next hello is larger by our cookie.
        if asks then assert.is_true(size ~= nil and size + 32 <= limit, limit) end
      end
      assert.same({ yes = true, no = true }, offered)
      local conn = pair.open(server, nil, trusting { session = blob, [kind] = 300 })
      assert.is_false(conn:isSessionReused())
      assert.is_true(pair.roundTrip(conn, 'small'))
      pair.close(conn, server)
    end))
  end

  it('is not offered by a client of the core that is told its MTU last', loop.run(function()
    local server = listening()
    local blob = session(server)
    local made = assert(dtls.createContext('client', trusting())).core
    for _, case in ipairs { { 1228, true }, { 300, false } } do
      local mtu, expected = unpack(case)
      local nobody, udp = raw.open(), uv.new_udp()
      assert(udp:connect(nobody.ip, nobody.port))
      nobody:hear(udp:getsockname())
      local association = assert(core.client(made, core.fd(udp), { servername = server.ip, session = blob }))
      assert(association:set_mtu(mtu))
      association:handshake()
      loop.till(function() return nobody.inbox[1] end, 'a hello')
      assert.equal(expected, nobody.inbox[1]:byte(60) > 0)
      association:close()
      pair.close(udp, nobody)
    end
    pair.close(server)
  end))
end)

describe('a session store', function()
  local ONE_OF_THEM = { servername = 'a.example' }

  pair.eachStrategy(function(demux)
    it('gets each new session, and is asked for those that clients offer', loop.run(function()
      local store = memory()
      local server = pair.echo(listening { sessionStore = store, demux = demux })
      local blob = session(server)
      assert.same({}, store.asked)
      assert.equal(1, #store.kept)
      local id = store.kept[1]
      assert.equal(32, #id)
      local conn, accepted = pair.open(server, nil, trusting { session = blob })
      assert.is_true(conn:isSessionReused())
      assert.is_true(accepted:isSessionReused())
      assert.equal(store.sessions[id], accepted:getSession())
      assert.is_true(pair.roundTrip(conn, 'from the store'))
      assert.same({ id }, store.asked)
      assert.same({ id }, store.kept)
      assert.same({}, store.removed)
      pair.close(conn, server)
    end))
  end)

  it('has no tickets beside it, whatever the options of the identities', loop.run(function()
    local own = { cert = identity.cert, key = identity.key }
    for _, options in ipairs {
      {}, { sni = { ['*'] = own } }, { options = { 'NO_TICKET' } }, { options = { 'NO_TICKET' }, sni = { ['*'] = own } },
    } do
      local store = memory()
      local server = listening(with(options, { sessionStore = store, ticketKeys = KEY }))
      local blob = session(server, ONE_OF_THEM)
      assert.equal(1, #store.kept)
      assert.is_true(resumes(server, blob, ONE_OF_THEM))
      store.sessions = {}
      assert.is_false(resumes(server, blob, ONE_OF_THEM))
      pair.close(server)
    end
  end))

  it('is not asked about a hello without an id', loop.run(function()
    local store = memory()
    local server = listening { sessionStore = store }
    session(server)
    session(server)
    assert.same({}, store.asked)
    pair.close(server)
  end))

  it('may have forgotten: there is a full handshake, and a new session', loop.run(function()
    local store = memory()
    local server = listening { sessionStore = store }
    local blob = session(server)
    store.sessions = {}
    local reused, newer = visit(server, { session = blob })
    assert.is_false(reused)
    assert.equal(2, #store.kept)
    assert.same({}, store.removed)
    assert.is_true(resumes(server, newer))
    pair.close(server)
  end))

  it('resumes no ticket, and a ticket no stored session', loop.run(function()
    local stored, sealed = listening { sessionStore = memory() }, listening { ticketKeys = KEY }
    local one, other = session(stored), session(sealed)
    assert.is_false(resumes(sealed, one))
    assert.is_false(resumes(stored, other))
    assert.is_true(resumes(stored, one))
    assert.is_true(resumes(sealed, other))
    pair.close(stored, sealed)
  end))

  it('stays with its server, whatever context that gets', loop.run(function()
    local server = listening { sessionStore = memory() }
    local blob = session(server)
    assert(server:setContext { cert = identity.cert, key = identity.key })
    assert.is_true(resumes(server, blob))
    assert.is_true(resumes(server, session(server)))
    pair.close(server)
  end))

  it('may be shared by servers, of names or not', loop.run(function()
    local store = memory()
    local own = { cert = identity.cert, key = identity.key }
    local one, other = listening { sessionStore = store }, listening { sessionStore = store }
    local third = listening { sessionStore = store, sni = { ['a.example'] = own } }
    local blob = session(one, ONE_OF_THEM)
    for _, server in ipairs { one, other, third } do assert.is_true(resumes(server, blob, ONE_OF_THEM)) end
    pair.close(one, other, third)
  end))

  it('keeps who a client is', loop.run(function()
    local server = listening { sessionStore = memory(), requestCert = true, ca = me.cert }
    local options = trusting { cert = me.cert, key = me.key }
    options.session = session(server, options)
    local conn, accepted = pair.open(server, nil, options)
    assert.is_true(accepted:isSessionReused())
    assert.same({ true }, pair.verdict(accepted))
    assert.equal(me.fingerprint, accepted:getPeerCertificate().fingerprint256)
    pair.close(conn, server)
    server = pair.listening { sessionStore = memory(), psk = { alice = 'her key' } }
    options = { psk = { identity = 'alice', key = 'her key' } }
    options.session = session(server, options)
    conn, accepted = pair.open(server, nil, options)
    assert.is_true(accepted:isSessionReused())
    assert.equal('alice', accepted.pskIdentity)
    pair.close(conn, server)
  end))

  it('may take its time: get yields, and others are served meanwhile', loop.run(function()
    local store = memory()
    local get, waiting = store.get, nil
    function store.get(id)
      waiting = coroutine.running()
      coroutine.yield()
      return get(id)
    end
    local server = pair.echo(listening { sessionStore = store })
    local blob = session(server)
    local conn = pair.client(server, trusting { session = blob })
    local heard = pair.record(conn, 'connection', 'error')
    loop.till(function() return waiting end, 'the question')
    local other = pair.open(server, nil, trusting())
    assert.is_true(pair.roundTrip(other, 'meanwhile'))
    assert.equal('', heard.names())
    assert(coroutine.resume(waiting))
    heard.wait 'connection'
    assert.is_true(conn:isSessionReused())
    assert.is_true(pair.roundTrip(conn, 'at last'))
    pair.close(conn, other, server)
  end))

  it('may take so long that the handshake is over: its answer is ignored', loop.run(function()
    local store, waiting = memory(), nil
    local first = listening { sessionStore = store }
    local blob = session(first)
    local server = listening { handshakeTimeout = 100 * loop.patience, sessionStore = with(store, { get = function()
      waiting = coroutine.running()
      coroutine.yield()
      return 'garbage'
    end }) }
    local refused = pair.record(server, 'clientError', 'error')
    local conn = pair.client(server, trusting { session = blob })
    assert.equal('ERR_DTLS_HANDSHAKE_TIMEOUT', refused.wait 'clientError'[2].code)
    pair.close(conn)
    assert(coroutine.resume(waiting))
    visit(server)
    assert.equal('clientError', refused.names())
    assert.same({}, store.removed)
    pair.close(first, server)
  end))

  -- What get answers instead of the session; the client has one of a store that works.
  local function answering(answer)
    local store = memory()
    local right = listening { sessionStore = store }
    local blob = session(right)
    session(right)
    pair.close(right)
    local id, other = store.kept[1], store.kept[2]
    local function get() return answer(store.sessions[id], store.sessions[other]) end
    return listening { sessionStore = with(store, { get = get }) }, blob, id, store
  end

  local broken = {
    ['garbage'] = function() return 'garbage' end,
    ['nothing but bytes'] = function() return '' end,
    ['half of it'] = function(blob) return blob:sub(1, -2) end,
    ['an expired session'] = function(blob) return aged(blob, 301) end,
  }
  for what, answer in pairs(broken) do
    it('that has ' .. what .. ' is told to remove it; there is a full handshake', loop.run(function()
      local server, blob, id, store = answering(answer)
      local reused, newer = visit(server, { session = blob })
      assert.is_false(reused)
      assert.is_string(newer)
      assert.same({ id }, store.removed)
      pair.close(server)
    end))
  end

  it('that has the session of another id resumes nothing, and keeps it', loop.run(function()
    local server, blob, _, store = answering(function(_, other) return other end)
    assert.is_false((visit(server, { session = blob })))
    assert.same({}, store.removed)
    pair.close(server)
  end))

  for what, answer in pairs {
    ['fails'] = function() error('the disk is gone', 0) end,
    ['answers with a number'] = function() return 5 end,
    ['answers with false'] = function() return false end,
    ['answers with a table'] = function() return {} end,
  } do
    it('that ' .. what .. ' fails that handshake, and no other', loop.run(function()
      local server, blob = answering(answer)
      local refused = pair.record(server, 'clientError', 'error', 'connection')
      local conn = pair.client(server, trusting { session = blob, retransmitTimeout = 50 })
      local heard = pair.record(conn, 'connection', 'error', 'close')
      local err = refused.wait 'clientError'[2]
      assert.equal('ERR_DTLS_CALLBACK', err.code)
      assert.matches(what == 'fails' and 'the disk is gone' or 'sessionStore.get', err.message)
      assert.equal('internal_error', heard.wait 'error'[2].alert)
      heard.wait 'close'
      assert.equal('error close', heard.names())
      assert.is_nil(refused.find 'connection')
      assert.is_nil(refused.find 'error')
      visit(server)
      pair.close(server)
    end))
  end

  local function failing(store, method, how)
    return with(store, { [method] = function()
      if how == 'later' then coroutine.yield() end
      error('the disk is gone', 0)
    end })
  end

  for _, method in ipairs { 'set', 'remove' } do
    -- A handshake that makes the server call the method.
    local function provoke(how)
      local store = with(memory(), { get = function() return 'garbage' end })
      local right = listening { sessionStore = store }
      local blob = session(right)
      pair.close(right)
      return listening { sessionStore = failing(store, method, how) }, { session = method == 'remove' and blob or nil }
    end

    it('whose ' .. method .. ' fails is the server\'s trouble: `error`, and the connection is well', loop.run(function()
      local server, options = provoke 'at once'
      pair.echo(server)
      local heard = pair.record(server, 'error', 'clientError')
      local conn, accepted = pair.open(server, nil, trusting(options))
      local own = pair.record(accepted, 'error')
      assert.is_true(pair.roundTrip(conn, 'well'))
      local err = heard.wait 'error'[2]
      assert.equal('ERR_DTLS_CALLBACK', err.code)
      assert.equal(('sessionStore.%s: the disk is gone'):format(method), err.message)
      assert.equal('error', heard.names())
      assert.equal('', own.names())
      assert.equal(0, server:stats().unhandledErrors)
      pair.close(conn, server)
    end))

    it('whose ' .. method .. ' fails is counted when nobody listens', loop.run(function()
      local server, options = provoke 'at once'
      pair.echo(server)
      local conn = pair.open(server, nil, trusting(options))
      assert.is_true(pair.roundTrip(conn, 'well'))
      assert.equal(1, server:stats().unhandledErrors)
      pair.close(conn, server)
    end))

    it('may take its time over ' .. method .. ', and fail then', loop.run(function()
      local server, options = provoke 'later'
      pair.echo(server)
      local store = server._options.sessionStore
      local slow, thread = store[method], nil
      store[method] = function(...)
        thread = coroutine.running()
        return slow(...)
      end
      local heard = pair.record(server, 'error')
      local conn = pair.open(server, nil, trusting(options))
      assert.is_true(pair.roundTrip(conn, 'well'))
      assert.equal('', heard.names())
      assert(coroutine.resume(thread))
      assert.equal('ERR_DTLS_CALLBACK', heard.wait 'error'[2].code)
      assert.is_true(pair.roundTrip(conn, 'still well'))
      pair.close(conn, server)
    end))
  end

  it('is told to remove a session that ended with a fatal alert', loop.run(function()
    local store = memory()
    local server = listening { sessionStore = store }
    for _, code in ipairs { 'ERR_DTLS_PROTOCOL', 'ERR_DTLS_ALERT' } do
      local conn, accepted = pair.open(server, nil, trusting())
      local blob = conn:getSession()
      accepted:destroy(core.error(code, 'as if libssl had said so'))
      assert.equal(store.kept[#store.kept], store.removed[#store.removed])
      pair.close(conn)
      assert.is_false(resumes(server, blob))
    end
    assert.equal(2, #store.removed)
    pair.close(server)
  end))

  it('keeps the session of a connection that ends otherwise', loop.run(function()
    local store = memory()
    local server = listening { sessionStore = store }
    for _, finish in ipairs {
      function(_, accepted) accepted:close() end,
      function(_, accepted) accepted:destroy() end,
      function(_, accepted) accepted:destroy(core.error('ERR_DTLS_SYSTEM', 'something else')) end,
      function(conn) conn:close() end,
    } do
      local conn, accepted = pair.open(server, nil, trusting())
      local blob = conn:getSession()
      finish(conn, accepted)
      pair.close(conn)
      assert.is_true(resumes(server, blob))
    end
    assert.same({}, store.removed)
    pair.close(server)
  end))

  it('is a table of three functions, else createServer raises', loop.run(function()
    local own = { cert = identity.cert, key = identity.key }
    local good = memory()
    for _, wrong in ipairs { 5, {}, { get = good.get, set = good.set }, with(good, { remove = 'no' }) } do
      assert.error_matches(function() dtls.createServer(with(own, { sessionStore = wrong })) end, "option 'sessionStore'")
    end
    assert.error_matches(function()
      dtls.connect { host = '127.0.0.1', port = 1, sessionStore = good }
    end, "option 'sessionStore' belongs to createServer")
  end))
end)

describe('a session is bound to the signature algorithms and groups', function()
  local ecdsa = 'ECDSA+SHA256:ECDSA+SHA384'

  for name, change in pairs {
    ['setSigalgs of the context'] = function(made) assert(made:setSigalgs 'ECDSA+SHA256') end,
    ['setGroups of the context'] = function(made) assert(made:setGroups 'P-256:P-384') end,
    ['setSigalgs of the connection'] = function(_, server)
      server:on('accept', function(accepted) assert(accepted:setSigalgs 'ECDSA+SHA256') end)
    end,
    ['setGroups of the connection'] = function(_, server)
      server:on('accept', function(accepted) assert(accepted:setGroups 'P-256:P-384') end)
    end,
  } do
    it('of a server: none is resumed after ' .. name, loop.run(function()
      local made = assert(dtls.createContext('server', { cert = pair.identity.cert, key = pair.identity.key, sigalgs = ecdsa }))
      local server = pair.listening { context = made }
      local first = pair.open(server)
      local blob = first:getSession()
      local again = pair.open(server, nil, { session = blob })
      assert.is_true(again:isSessionReused())
      change(made, server)
      local other = pair.open(server, nil, { session = blob })
      assert.is_false(other:isSessionReused())
      pair.close(first, again, other, server)
    end))
  end

  it('of a client: none is offered that was made under other ones', loop.run(function()
    local server = pair.listening()
    local first = pair.open(server, nil, { sigalgs = ecdsa })
    local blob = first:getSession()
    local same = pair.open(server, nil, { sigalgs = ecdsa, session = blob })
    local other = pair.open(server, nil, { sigalgs = 'ECDSA+SHA256', session = blob })
    assert.is_true(same:isSessionReused())
    assert.is_false(other:isSessionReused())
    pair.close(first, same, other, server)
  end))
end)

-- A new option fails here until somebody has decided whether it has a say in who may connect.
describe('a session and each option that brings or chooses credentials', function()
  local BOUND = {
    ca = true, crl = true, fingerprint = true, psk = true, requestCert = true, rejectUnauthorized = true, checkServerIdentity = true,
    ciphers = true, sigalgs = true, groups = true, sessionIdContext = true, maxFragmentLength = true,
    allowPartialTrustChain = true, verifyTime = true, rawPublicKey = true, peerPublicKey = true,
    sni = true, SNICallback = true, servername = true, -- the name, and what the context of that name says
  }
  local NOT_BOUND = {
    cert = 'who we are; sessions outlive a renewed certificate', key = 'as cert', passphrase = 'opens key',
    minVersion = 'there is one version', maxVersion = 'there is one version', pskIdentityHint = 'a hint, which nobody checks',
    ALPNProtocols = 'agreed on anew', srtpProfiles = 'agreed on anew', ticketKeys = 'without the key nothing is resumed',
    sessionTimeout = 'kept in the session', keylog = 'changes nothing on the wire', options = 'none decides who the peer is',
    modes = 'none decides who the peer is',
  }

  it('have been decided upon, one way or the other', function()
    local options = require 'dtls.options'
    local server, client = options.roles.server, options.roles.client
    local choosers = { sni = server.sni, SNICallback = server.SNICallback, servername = client.servername }
    for name in pairs(pair.with(options.credentials, choosers)) do
      assert.is_true((BOUND[name] or NOT_BOUND[name]) ~= nil, name .. ': may a session that was made with another value be resumed?')
      assert.is_nil(BOUND[name] and NOT_BOUND[name], name)
    end
  end)
end)
