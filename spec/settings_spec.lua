local dtls = require 'dtls'
local hello = require 'spec.support.hello'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'
local pki = require 'spec.support.pki'
local proxy = require 'spec.support.proxy'
local raw = require 'spec.support.raw'

local identity = pair.identity

-- root → middle → leaf; `chained` is the leaf with what is above it.
local files = pki.new()
local root = files:certificate('root', { authority = true })
local middle = files:certificate('middle', { authority = true, issuer = root })
local leaf = files:certificate('leaf', { issuer = middle })
local rsa = files:certificate('rsa', { type = 'rsa', issuer = middle })
local rsaPss = files:certificate('pss', { type = 'rsa-pss' })
root, middle, leaf, rsa = root.pem, middle.pem, leaf.pem, rsa.pem
local chained = { cert = leaf.cert .. middle.cert, key = leaf.key }
files:remove()

local AES128, AES256 = 'ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384'
local CHACHA, CCM8 = 'ECDHE-ECDSA-CHACHA20-POLY1305', 'ECDHE-ECDSA-AES128-CCM8'

local merged = pair.merged

local function serverContext(options)
  local own = options and options.cert and {} or { cert = identity.cert, key = identity.key }
  return assert(dtls.createContext('server', merged(own, { retransmitTimeout = 30 }, options)))
end

local function clientContext(options)
  local trust = options and options.ca and {} or { fingerprint = identity.fingerprint }
  return assert(dtls.createContext('client', merged(trust, { retransmitTimeout = 30 }, options)))
end

-- Connects, and gives what `look` sees of the connection; or why the handshake failed, as the side that ended it
-- says (the other one knows an alert alone). `prepare` gets the connection right after connect.
local function outcome(server, made, look, prepare)
  local options = { context = made, servername = 'localhost' }
  local accepted, refused
  local function opened(conn) accepted = conn end
  local function failed(err) refused = err end
  server:on('connection', opened)
  server:on('clientError', failed)
  local conn = pair.client(server, options)
  if prepare then assert.is_true(prepare(conn)) end
  local heard = pair.record(conn, 'connection', 'error')
  loop.till(function() return heard[1] and (accepted or refused) end, 'both ends to know how it went')
  server:removeListener('connection', opened)
  server:removeListener('clientError', failed)
  local seen
  if refused then
    local err = refused.code == 'ERR_DTLS_ALERT' and heard.find('error')[2] or refused
    seen = err.reason or err.code
  else
    seen = look and look(conn, server, options) or 'open'
  end
  pair.close(conn)
  return seen
end

local function suite(conn) return conn:getCipher().name end
local function masterSecret(conn) return conn.extendedMasterSecret and 'extended' or 'plain' end

local function resumed(conn, server, options)
  local session = conn:getSession()
  if not session then return 'no session' end
  local again = pair.open(server, nil, merged(options, { session = session }))
  local reused = again:isSessionReused()
  pair.close(again)
  return reused and 'resumed' or 'anew'
end


-- `own` are the options of the side that is set, `peer` those of the other one; before and after: what `look` sees, or the
-- reason for failure. `on` says what is set: the context of a listening server, a server's connection in `accept`, or the
-- context of clients.
local cases = {
  { 'setCiphers limits the suites', on = 'context accept client',
    set = function(target) return target:setCiphers(CHACHA) end, look = suite, before = AES128, after = CHACHA },
  { 'setCiphers leaves nothing when no suite is common', on = 'context accept client', peer = { ciphers = AES128 },
    set = function(target) return target:setCiphers(AES256) end, before = 'open', after = 'NO_SHARED_CIPHER' },
  { 'setCiphers lets the short tags of CCM_8 in', on = 'context accept client', peer = { ciphers = CCM8 },
    set = function(target) return target:setCiphers(CCM8) end, before = 'NO_SHARED_CIPHER', after = 'open' },
  { 'setGroups limits the groups', on = 'context accept client', peer = { groups = 'X25519:P-256' },
    set = function(target) return target:setGroups 'P-384' end, before = 'open', after = 'NO_SHARED_CIPHER' },
  { 'setGroups keeps those that are common', on = 'context accept client', peer = { groups = 'P-256:P-384' },
    set = function(target) return target:setGroups 'P-384:P-256' end, before = 'open', after = 'open' },
  { 'setSigalgs limits the signatures', on = 'context accept client', peer = { sigalgs = 'ECDSA+SHA256' },
    set = function(target) return target:setSigalgs 'ECDSA+SHA384' end, before = 'open', after = 'NO_SHARED_SIGNATURE_ALGORITHMS' },
  { 'setSigalgs keeps those that are common', on = 'context accept client', peer = { sigalgs = 'ECDSA+SHA384' },
    set = function(target) return target:setSigalgs 'ECDSA+SHA384' end, before = 'open', after = 'open' },
  { 'setOptions NO_TICKET ends resumption', on = 'context accept client', look = resumed,
    set = function(target) return target:setOptions { 'NO_TICKET' } end, before = 'resumed', after = 'no session' },
  { 'setOptions NO_EXTENDED_MASTER_SECRET does without', on = 'context accept client', look = masterSecret,
    set = function(target) return target:setOptions { 'NO_EXTENDED_MASTER_SECRET' } end, before = 'extended', after = 'plain' },
  { 'setOptions PRIORITIZE_CHACHA takes ChaCha20 when the client likes it best', on = 'context accept',
    set = function(target) return target:setOptions { 'PRIORITIZE_CHACHA' } end, peer = { ciphers = CHACHA .. ':' .. AES128 },
    look = suite, before = AES128, after = CHACHA },
  { 'clearOptions CIPHER_SERVER_PREFERENCE lets the client choose', on = 'context accept',
    set = function(target) return target:clearOptions { 'CIPHER_SERVER_PREFERENCE' } end, peer = { ciphers = AES256 .. ':' .. AES128 },
    look = suite, before = AES128, after = AES256 },
  { 'setVerify makes a server ask for a certificate', on = 'context accept', own = { ca = root.cert },
    set = function(target) return target:setVerify { mode = { 'PEER', 'FAIL_IF_NO_PEER_CERT' } } end,
    before = 'open', after = 'NO_PEER_CERTIFICATE' },
  { 'setVerify lets a good certificate in', on = 'context accept', own = { ca = root.cert }, peer = chained,
    set = function(target) return target:setVerify { mode = { 'PEER', 'FAIL_IF_NO_PEER_CERT' } } end,
    before = 'open', after = 'open' },
  { 'setVerify PEER does not insist on a certificate', on = 'context accept', own = { ca = root.cert },
    set = function(target) return target:setVerify { mode = 'PEER' } end, before = 'open', after = 'open' },
  { 'setVerify PEER refuses a certificate that does not verify', on = 'context accept',
    set = function(target) return target:setVerify { mode = 'PEER' } end, own = { ca = identity.cert }, peer = chained,
    before = 'open', after = 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY' },
  { 'setVerify refuses what rejectUnauthorized = false would let in', on = 'context accept', peer = chained,
    set = function(target) return target:setVerify { mode = 'PEER' } end,
    own = { ca = identity.cert, requestCert = true, rejectUnauthorized = false },
    before = 'open', after = 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY' },
  { 'setVerify NONE makes a server ask for nothing', on = 'context accept', own = { ca = root.cert, requestCert = true },
    set = function(target) return target:setVerify { mode = 'NONE' } end, before = 'NO_PEER_CERTIFICATE', after = 'open' },
  { 'setVerify NONE makes a client take any server', on = 'client', own = { ca = root.cert },
    set = function(target) return target:setVerify { mode = 'NONE' } end, before = 'DEPTH_ZERO_SELF_SIGNED_CERT', after = 'open' },
  { 'setVerify PEER makes a client look again', on = 'client', own = { ca = root.cert, rejectUnauthorized = false },
    set = function(target) return target:setVerify { mode = 'PEER' } end, before = 'open', after = 'DEPTH_ZERO_SELF_SIGNED_CERT' },
  { 'setVerify depth limits the chain of a client', on = 'context accept',
    set = function(target) return target:setVerify { depth = 0 } end, own = { ca = root.cert, requestCert = true }, peer = chained,
    before = 'open', after = 'CERT_CHAIN_TOO_LONG' },
  { 'setVerify depth limits the chain of a server', on = 'client', own = { ca = root.cert }, peer = chained,
    set = function(target) return target:setVerify { depth = 0 } end, before = 'open', after = 'CERT_CHAIN_TOO_LONG' },
  { 'setVerify depth lets a chain of a client in that is just as long', on = 'context accept',
    set = function(target) return target:setVerify { depth = 1 } end, own = { ca = root.cert, requestCert = true }, peer = chained,
    before = 'open', after = 'open' },
  { 'setVerify depth lets a chain of a server in that is just as long', on = 'client',
    set = function(target) return target:setVerify { depth = 1 } end, own = { ca = root.cert }, peer = chained,
    before = 'open', after = 'open' },
  { 'setCiphers raises the security level', on = 'client',
    own = { ca = root.cert }, peer = { cert = rsa.cert .. middle.cert, key = rsa.key },
    set = function(target) return target:setCiphers 'ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=3' end,
    before = 'open', after = 'EE_KEY_TOO_SMALL' },
  { 'setCiphers raises the security level for a client\'s certificate', on = 'context accept',
    own = { ca = root.cert, requestCert = true }, peer = { cert = rsa.cert .. middle.cert, key = rsa.key },
    set = function(target) return target:setCiphers(AES128 .. ':@SECLEVEL=3') end, before = 'open', after = 'EE_KEY_TOO_SMALL' },
}

-- The two sides of a case, when `target` is set.
local function sides(case, target)
  local server, client = case.own, case.peer
  if target == 'client' then server, client = client, server end
  return serverContext(server), clientContext(client)
end

local function eachCase(target, body)
  for _, case in ipairs(cases) do
    if case.on:find(target, 1, true) then it(case[1], loop.run(function() body(case, sides(case, target)) end)) end
  end
end

describe('a setting of a server\'s context counts for the very next handshake', function()
  eachCase('context', function(case, made, client)
    local server = pair.listening { context = made }
    assert.equal(case.before, outcome(server, client, case.look))
    local stranger = raw.open()
    hello.cookie(stranger, server) -- the SSL that waits for the next hello is made by now
    assert.is_true(case.set(made))
    assert.equal(case.after, outcome(server, client, case.look))
    pair.close(stranger, server)
  end)
end)

for where, listen in pairs {
  [''] = function(made) return { context = made } end,
  [', although its name has a context of its own'] = function(made) return { context = serverContext(), sni = { localhost = made } } end,
} do
  describe('a setting of a server\'s connection in accept counts for that connection' .. where, function()
    eachCase('accept', function(case, made, client)
      local server = pair.listening(listen(made))
      local victim = true
      server:on('accept', function(conn)
        if victim then assert.is_true(case.set(conn)) end
      end)
      assert.equal(case.after, outcome(server, client, case.look))
      victim = false
      assert.equal(case.before, outcome(server, client, case.look))
      pair.close(server)
    end)
  end)
end

describe('setVerify behind a server\'s flight', function()
  for requested, mode in pairs { [true] = 'NONE', [false] = 'PEER' } do
    it(('does not change what is waited for (%s)'):format(mode), loop.run(function()
      local server = pair.listening { requestCert = requested, fingerprint = requested and identity.fingerprint or nil }
      local accepted
      server:on('accept', function(conn) accepted = conn end)
      local set
      local between = proxy.new(server, { filter = function(towards, index, data)
        if towards == 'client' and index == 2 then set = accepted:setVerify { mode = mode } end
        return data
      end })
      local conn = pair.open(server, between, { cert = identity.cert, key = identity.key })
      assert.is_true(set)
      pair.close(conn, server, between)
    end))
  end
end)

describe('a setting of a client\'s context counts for the next connection', function()
  eachCase('client', function(case, made, client)
    local server = pair.listening { context = made }
    assert.equal(case.before, outcome(server, client, case.look))
    assert.is_true(case.set(client))
    assert.equal(case.after, outcome(server, client, case.look))
    pair.close(server)
  end)
end)

describe('a setting of a client\'s connection right after connect counts for that connection', function()
  eachCase('client', function(case, made, client)
    local server = pair.listening { context = made }
    assert.equal(case.after, outcome(server, client, case.look, case.set))
    assert.equal(case.before, outcome(server, client, case.look))
    pair.close(server)
  end)
end)

describe('a session that a client offers', function()
  for name, set in pairs {
    setVerify = function(conn) return conn:setVerify { mode = 'PEER' } end, depth = function(conn) return conn:setVerify { depth = 5 } end,
    setCiphers = function(conn) return conn:setCiphers(AES128) end, setGroups = function(conn) return conn:setGroups 'P-256' end,
    setSigalgs = function(conn) return conn:setSigalgs 'ECDSA+SHA256' end,
  } do
    it(('is not offered after %s right after connect, which it may not be worth'):format(name), loop.run(function()
      local server = pair.listening { context = serverContext() }
      local client = clientContext()
      local conn = pair.open(server, nil, { context = client })
      local session = assert(conn:getSession())
      pair.close(conn)
      conn = pair.client(server, { context = client, session = session })
      assert.is_true(set(conn))
      loop.event(conn, 'connection')
      assert.is_false(conn:isSessionReused())
      pair.close(conn)
      conn = pair.open(server, nil, { context = client, session = session })
      assert.is_true(conn:isSessionReused())
      pair.close(conn, server)
    end))
  end
end)

describe('modes', function()
  it('are on from then on: SEND_FALLBACK_SCSV marks the hello of a client (RFC 7507)', loop.run(function()
    local function marked(made)
      local server = raw.open()
      local conn = pair.client(server, { context = made })
      loop.till(function() return server.inbox[1] end, 'a hello')
      local suites = server.inbox[1]:match('^' .. ('.'):rep(13 + 12 + 2 + 32) .. '%z%z..(.*)') -- no session, no cookie
      pair.close(conn, server)
      return suites:find('\86\0', 1, true) ~= nil
    end
    local made = clientContext()
    assert.is_false(marked(made))
    assert.is_true(made:setModes { 'SEND_FALLBACK_SCSV', 'RELEASE_BUFFERS' })
    assert.same({ 'AUTO_RETRY', 'RELEASE_BUFFERS', 'SEND_FALLBACK_SCSV' }, made:modes())
    assert.is_true(marked(made))
    assert.is_true(marked(clientContext { modes = { 'SEND_FALLBACK_SCSV' } }))
  end))

  it('of a connection are its own', loop.run(function()
    local made = serverContext()
    local server = pair.listening { context = made }
    local conn, accepted = pair.open(server)
    assert.is_true(accepted:setModes 'RELEASE_BUFFERS')
    assert.same({ 'AUTO_RETRY', 'RELEASE_BUFFERS' }, accepted:modes())
    assert.same({ 'AUTO_RETRY' }, made:modes())
    pair.close(conn, server)
  end))
end)

describe('what a setter does not take', function()
  -- the setter, its argument, and what the message says
  local refused = {
    { 'setOptions', { 'NO_SUCH_OPTION' }, "'NO_SUCH_OPTION'" },
    { 'setOptions', { 'NO_TICKET', 'SSL_OP_NO_TICKET' }, "'SSL_OP_NO_TICKET'" },
    { 'setOptions', { 'NO_TICKET', 'NO_QUERY_MTU' }, 'NO_QUERY_MTU cannot be changed: the MTU is' },
    { 'setOptions', 'COOKIE_EXCHANGE', 'COOKIE_EXCHANGE cannot be changed: every peer proves its address' },
    { 'setOptions', { 'NO_RENEGOTIATION' }, 'NO_RENEGOTIATION cannot be changed: renegotiation' },
    { 'setOptions', { 'ALLOW_CLIENT_RENEGOTIATION' }, 'ALLOW_CLIENT_RENEGOTIATION cannot be changed: renegotiation' },
    { 'setOptions', { 'ALLOW_UNSAFE_LEGACY_RENEGOTIATION' }, 'cannot be changed: renegotiation' },
    { 'setOptions', { 'NO_COMPRESSION' }, 'NO_COMPRESSION cannot be changed: compression leaks' },
    { 'setOptions', { 'NO_DTLSv1_2' }, 'NO_DTLSv1_2 cannot be changed: DTLS 1.2' },
    { 'clearOptions', { 'CIPHER_SERVER_PREFERENCE', 'NO_QUERY_MTU' }, 'NO_QUERY_MTU cannot be changed' },
    { 'clearOptions', { 'NO_RENEGOTIATION' }, 'NO_RENEGOTIATION cannot be changed' },
    { 'clearOptions', { 'NO_COMPRESSION' }, 'NO_COMPRESSION cannot be changed' },
    { 'clearOptions', { 'CIPHER_SERVER_PREFERENCE', 'NOPE' }, "'NOPE'" },
    { 'setModes', { 'RELEASE_BUFFERS', 'ASYNC' }, 'ASYNC cannot be changed: nothing here waits' },
    { 'setModes', { 'RELEASE_BUFFERS', 'NOPE' }, "'NOPE'" },
    { 'setVerify', { mode = { 'PEER', 'NOPE' }, depth = 0 }, "'NOPE'" },
    { 'setCiphers', 'NO-SUCH-SUITE', 'ciphers:' }, { 'setCiphers', '', 'ciphers:' }, { 'setCiphers', '!ALL', 'ciphers:' },
    { 'setCiphers', 'ECDHE-ECDSA-AES128-SHA256:AES128-SHA', 'AEAD' }, { 'setCiphers', 'eNULL', 'AEAD' },
    { 'setCiphers', 'ADH-AES128-GCM-SHA256', 'anonymous' }, { 'setCiphers', 'TLS_AES_128_GCM_SHA256', 'DTLS 1.2' },
    { 'setCiphers', 'ECDHE+AESGCM:@SECLEVEL=1', '@SECLEVEL' }, { 'setCiphers', '@SECLEVEL=0:ALL', '@SECLEVEL' },
    { 'setGroups', 'P-255', 'groups:' }, { 'setGroups', 'P-256:P-255', 'groups:' },
    { 'setSigalgs', 'ECDSA+MD7', 'sigalgs:' }, { 'setSigalgs', 'ECDSA+SHA384:ECDSA+MD7', 'sigalgs:' },
    { 'setTicketKeys', ('k'):rep(79), 'setTicketKeys:' }, { 'setTicketKeys', {}, 'setTicketKeys:' },
    { 'setTicketKeys', { ('k'):rep(80), ('k'):rep(81) }, 'setTicketKeys:' },
  }

  local function refuse(target, setter, argument, words)
    if not target[setter] then return end -- a connection has no ticket keys of its own
    local ok, err = target[setter](target, argument)
    assert.is_nil(ok, setter)
    assert.equal('ERR_DTLS_CONFIG', err.code)
    assert.truthy(err.message:find(words, 1, true), ('%q is missing from: %s'):format(words, err.message))
  end

  -- What a client has to do with it: everything that the settings above change.
  local function look(conn, server, made)
    return table.concat({ suite(conn), masterSecret(conn), resumed(conn, server, made) }, ' ')
  end

  it('is a runtime failure that leaves a context as it was', loop.run(function()
    local made, client = serverContext(), clientContext()
    local server = pair.listening { context = made }
    local info, before = made:info(), outcome(server, client, look)
    for _, each in ipairs(refused) do
      refuse(made, unpack(each))
      assert.same(info, made:info())
    end
    assert.equal(before, outcome(server, client, look))
    assert.equal('open', outcome(server, clientContext { groups = 'P-256', sigalgs = 'ECDSA+SHA256' }))
    pair.close(server)
  end))

  it('is a runtime failure that leaves a connection as it was', loop.run(function()
    local made, client = serverContext(), clientContext()
    local server = pair.listening { context = made }
    local before = outcome(server, client, look)
    server:on('accept', function(conn)
      local own = { conn:options(), conn:modes() }
      for _, each in ipairs(refused) do
        refuse(conn, unpack(each))
        assert.same(own, { conn:options(), conn:modes() })
      end
    end)
    local heard = pair.record(server, 'connection')
    assert.equal(before, outcome(server, client, look))
    assert.equal('open', outcome(server, clientContext { groups = 'P-256', sigalgs = 'ECDSA+SHA256' }))
    assert.equal(3, #heard)
    pair.close(server)
  end))

  it('makes no context either, among its options', function()
    for _, case in ipairs {
      { { options = { 'NO_TICKET', 'NO_QUERY_MTU' } }, 'NO_QUERY_MTU cannot be changed' }, { { options = { 'NOPE' } }, "'NOPE'" },
      { { modes = { 'ASYNC' } }, 'ASYNC cannot be changed' }, { { modes = 'NOPE' }, "'NOPE'" },
      { { ciphers = 'aNULL:eNULL' }, 'AEAD' }, { { ciphers = 'ALL@SECLEVEL=1' }, '@SECLEVEL' },
    } do
      local made, err = dtls.createContext('server', merged({ cert = identity.cert, key = identity.key }, case[1]))
      assert.is_nil(made)
      assert.equal('ERR_DTLS_CONFIG', err.code)
      assert.truthy(err.message:find(case[2], 1, true), err.message)
    end
  end)

  -- Of the wrong type.
  local wrong = {
    setOptions = { 7, true, { 7 }, { 'NO_TICKET', {} } }, clearOptions = { 7, { false } }, setModes = { 7, { 7 } },
    setVerify = {
      7, 'PEER', { mode = 7 }, { mode = { 7 } }, { depth = '1' }, { depth = -1 }, { depth = 1.5 }, { depth = 2 ^ 31 }, { modes = 'PEER' },
    },
    setCiphers = { 7, {} }, setGroups = { 7, {} }, setSigalgs = { 7, {} }, setTicketKeys = { 7, { 7 } },
  }

  local function assertRaised(target)
    for setter, arguments in pairs(wrong) do
      for i = 0, target[setter] and #arguments or -1 do -- 0: no argument
        local ok, err = pcall(function() target[setter](target, arguments[i]) end)
        assert.is_false(ok, setter)
        assert.truthy(err:find '^[^:]*settings_spec%.lua:%d+: ', 'blames another line: ' .. err)
      end
    end
  end

  it('raises, where it was called, when it is of the wrong type', loop.run(function()
    local made = serverContext()
    assertRaised(made)
    for name, value in pairs { options = 7, modes = { 7 } } do
      local ok, err = pcall(function() serverContext { [name] = value } end)
      assert.is_false(ok)
      assert.truthy(err:find(("settings_spec.lua:%%d+: createContext: option '%s'"):format(name)), err)
    end
    local server = pair.listening { context = made }
    server:on('accept', function(conn) assertRaised(conn) end)
    local heard = pair.record(server, 'connection')
    assert.equal('open', outcome(server, clientContext()))
    assert.equal(1, #heard)
    pair.close(server)
  end))
end)

describe('a suite that is named in a list', function()
  -- the list, what the message names, and why
  for _, case in ipairs {
    { AES128 .. ':ECDHE-ECDSA-AES128-SHA256', 'ECDHE-ECDSA-AES128-SHA256', 'AEAD' },
    { 'ECDHE-RSA-AES256-SHA384,' .. AES128, 'ECDHE-RSA-AES256-SHA384', 'AEAD' },
    { AES128 .. ' AES128-GCM-SHA256', 'AES128-GCM-SHA256', 'forward secrecy' },
    { AES128 .. ';RSA-PSK-AES128-GCM-SHA256', 'RSA-PSK-AES128-GCM-SHA256', 'forward secrecy' },
    { 'ADH-AES128-GCM-SHA256:' .. AES128, 'ADH-AES128-GCM-SHA256', 'anonymous' },
    { dtls.DEFAULT_CIPHERS .. ':ECDHE-ECDSA-AES128-GCM-SHA265', 'ECDHE-ECDSA-AES128-GCM-SHA265', 'no suite of this name' },
    { AES128 .. ':TLS_AES_128_GCM_SHA256', 'TLS_AES_128_GCM_SHA256', 'no suite of this name' },
    { 'ECDHE+AESGCM:' .. AES128 .. ':@SECLEVEL=4', AES128, 'security level' },
    { '@SECLEVEL=4:' .. AES256 .. ':' .. AES128, AES128, 'security level' },
    { AES128 .. '@SECLEVEL=4:' .. AES256, AES128, 'security level' },
    { AES128 .. ':PSK-AES128-GCM-SHA256:@SECLEVEL=3', 'PSK-AES128-GCM-SHA256', 'security level' },
    { ('X-'):rep(200), 'X-X-X', 'no suite of this name' },
  } do
    local list, name, why = unpack(case)
    it(('must be one of DTLS 1.2 that this module takes: %s, %s'):format(name, why), function()
      local function assertNamed(ok, err)
        assert.is_nil(ok)
        assert.equal('ERR_DTLS_CONFIG', err.code)
        assert.truthy(err.message:find('ciphers: ' .. name, 1, true), err.message)
        assert.truthy(err.message:find(why, 1, true), err.message)
      end
      local made = serverContext()
      local before = made:info()
      assertNamed(made:setCiphers(list))
      assert.same(before, made:info())
      assertNamed(dtls.createContext('server', { cert = identity.cert, key = identity.key, ciphers = list }))
      assertNamed(dtls.createContext('client', { fingerprint = identity.fingerprint, ciphers = list }))
    end)
  end

  it('may be taken away again, put last, or be part of a wider name', function()
    local made = serverContext()
    for list, suites in pairs {
      [('%s:%s:!%s'):format(AES128, AES256, AES128)] = { AES256 }, [('%s:%s:-%s'):format(AES128, AES256, AES256)] = { AES128 },
      [('%s:%s:+%s'):format(AES128, AES256, AES128)] = { AES256, AES128 },
      ['ECDHE+AESGCM+aECDSA:!ECDHE-ECDSA-AES128-SHA256:!NO-SUCH-SUITE:-ADH-AES128-GCM-SHA256'] = { AES256, AES128 },
      [CHACHA .. ':eNULL:SHA1:@STRENGTH'] = { CHACHA }, [CCM8 .. ':' .. AES256 .. ':@SECLEVEL=3'] = { CCM8, AES256 },
      [AES256 .. ', ' .. AES128 .. ' ' .. CHACHA .. ';'] = { AES256, AES128, CHACHA },
    } do
      assert.is_true(made:setCiphers(list))
      assert.same(suites, made:info().ciphers, list)
    end
  end)
end)

describe('DEFAULT_CIPHERS', function()
  it('is what both roles use when they are told nothing', function()
    for _, options in ipairs { {}, { psk = { me = 'sixteen bytes of' } } } do
      local own = merged(options, { cert = identity.cert, key = identity.key })
      local named = {}
      for _, each in ipairs(serverContext(merged(own, { ciphers = dtls.DEFAULT_CIPHERS })):info().ciphers) do named[each] = true end
      for _, each in ipairs(serverContext(own):info().ciphers) do assert.is_true(named[each], each) end
    end
  end)

  it('with more behind it keeps what it has before that', loop.run(function()
    local key = 'sixteen bytes of'
    local function suiteOf(server, client)
      local listening = pair.listening(merged({ psk = { me = key }, ciphers = dtls.DEFAULT_CIPHERS .. ':PSK-AES128-CCM8' }, server))
      local conn = pair.open(listening, nil, client)
      local seen = suite(conn)
      pair.close(conn, listening)
      return seen
    end
    local psk = { psk = { identity = 'me', key = key } }
    assert.equal('ECDHE-PSK-CHACHA20-POLY1305', suiteOf(nil, psk))
    assert.equal('PSK-AES128-CCM8', suiteOf(nil, merged(psk, { ciphers = 'PSK-AES128-CCM8' })))
    assert.equal(AES128, suiteOf({ cert = identity.cert, key = identity.key }, { fingerprint = identity.fingerprint }))
  end))

  it('has AEAD and forward secrecy, or a pre-shared key, and no short tag', function()
    for name in dtls.DEFAULT_CIPHERS:gmatch '[^:]+' do
      assert.truthy(name:find '^ECDHE%-' or name:find '^PSK%-', name)
      assert.truthy(name:find 'GCM' or name:find 'CHACHA20', name)
    end
  end)
end)

describe('a list of suites', function()
  local everything = 'ALL:COMPLEMENTOFALL:eNULL:aNULL:@STRENGTH'

  it('lets in what has AEAD and a proof of identity, whatever it says', function()
    local made = serverContext { ciphers = everything }
    assert.is_true(#made:info().ciphers > 20)
    for _, each in ipairs { made, serverContext() } do
      assert.is_true(each:setCiphers(everything))
      for _, name in ipairs(each:info().ciphers) do
        assert.truthy(name:find 'GCM' or name:find 'CCM' or name:find 'CHACHA20', name)
        assert.is_nil(name:find '^A?E?C?DH%-' or name:find 'NULL' or name:find 'CCM8', name)
      end
    end
  end)

  it('with all that OpenSSL has answers offers of CBC, NULL and anonymous suites with handshake_failure', loop.run(function()
    local server = pair.listening { context = serverContext { ciphers = everything } }
    for _, code in ipairs { '\192\35', '\192\9', '\0\59', '\192\6', '\0\166', '\192\24' } do
      local peer = raw.open()
      hello.halfOpen(peer, server, { suites = code .. '\0\255' })
      local answer = hello.records(peer.inbox[#peer.inbox])[1]
      assert.equal(21, answer.type)
      assert.equal('\2\40', answer.body)
      pair.close(peer)
    end
    pair.close(server)
  end))

  it('keeps the security level unless it raises it', loop.run(function()
    local made, client = serverContext { cert = rsa.cert .. middle.cert, key = rsa.key }, clientContext { ca = root.cert }
    local server = pair.listening { context = made }
    assert.is_true(client:setCiphers 'ECDHE+AESGCM@SECLEVEL=2')
    assert.equal('open', outcome(server, client))
    assert.is_true(client:setCiphers 'ECDHE+AESGCM:@SECLEVEL=3')
    assert.is_true(client:setCiphers 'ECDHE+AESGCM')
    assert.equal('EE_KEY_TOO_SMALL', outcome(server, client))
    assert.is_true(client:setCiphers 'ECDHE+AESGCM@SECLEVEL=2')
    assert.equal('open', outcome(server, client))
    pair.close(server)
  end))

  it('of one list is the same for every context that is given it', loop.run(function()
    local server = pair.listening { context = serverContext { cert = rsa.cert .. middle.cert, key = rsa.key } }
    for _, expected in ipairs { 'EE_KEY_TOO_SMALL', 'EE_KEY_TOO_SMALL', 'open', 'open', 'EE_KEY_TOO_SMALL', 'open' } do
      local list = expected == 'open' and 'ECDHE+AESGCM' or 'ECDHE+AESGCM:@SECLEVEL=3'
      assert.equal(expected, outcome(server, clientContext { ca = root.cert, ciphers = list }))
      local _, err = dtls.createContext('client', { ca = root.cert, ciphers = list .. ':NO-SUCH-SUITE' })
      assert.matches('NO%-SUCH%-SUITE', err.message)
    end
    pair.close(server)
  end))
end)

describe('a server whose keys libssl keeps back for DTLS', function()
  local ed25519 = assert(dtls.selfSigned { type = 'ed25519' })
  local pss = { cert = rsaPss.pem.cert, key = rsaPss.pem.key, fingerprint = rsaPss.fingerprint }

  for name, own in pairs { Ed25519 = ed25519, ['RSA-PSS'] = pss } do
    local function sidesOf(with)
      return serverContext { cert = own.cert, key = own.key, ca = root.cert, requestCert = true },
        clientContext { fingerprint = own.fingerprint, cert = with.cert .. middle.cert, key = with.key }
    end
    local function shown(conn) return conn:getPeerCertificate().fingerprint256 end

    it(('still shows and uses them after setSigalgs, which is for its clients (%s)'):format(name), loop.run(function()
      local made, client = sidesOf(leaf)
      local server = pair.listening { context = made }
      assert.equal(own.fingerprint, outcome(server, client, shown))
      assert.is_true(made:setSigalgs 'ECDSA+SHA256')
      assert.equal(own.fingerprint, outcome(server, client, shown))
      assert.is_true(made:setSigalgs 'rsa_pss_rsae_sha256')
      assert.equal('NO_PEER_CERTIFICATE', outcome(server, client))
      pair.close(server)
    end))

    it(('still shows and uses them after setSigalgs in accept (%s)'):format(name), loop.run(function()
      local made, client = sidesOf(rsa)
      local server = pair.listening { context = made }
      server:once('accept', function(conn) assert.is_true(conn:setSigalgs 'ECDSA+SHA256') end)
      assert.equal('NO_PEER_CERTIFICATE', outcome(server, client))
      assert.equal(own.fingerprint, outcome(server, client, shown))
      pair.close(server)
    end))
  end
end)

describe('ticket keys', function()
  local a, b = ('a'):rep(80), ('b'):rep(80)

  for title, set in pairs {
    ['of a context'] = function(made, _, keys) return made:setTicketKeys(keys) end,
    ['of a server'] = function(_, server, keys) return server:setTicketKeys(keys) end,
  } do
    it(title .. ' are rotated: the current one seals, both open', loop.run(function()
      local made, client = serverContext { ticketKeys = a }, clientContext()
      local server = pair.listening { context = made }
      local function session(with)
        local conn = pair.open(server, nil, { context = client, session = with })
        local blob, reused = conn:getSession(), conn:isSessionReused()
        pair.close(conn)
        return blob, reused
      end
      local old = session()
      assert.is_true(select(2, session(old)))
      assert.is_true(set(made, server, { b, a }))
      local renewed, reused = session(old)
      assert.is_true(reused)
      assert.is_true(set(made, server, b))
      assert.is_false(select(2, session(old)))
      assert.is_true(select(2, session(renewed)))
      assert.is_nil((set(made, server, ('c'):rep(79))))
      assert.is_true(select(2, session(renewed)))
      pair.close(server)
    end))
  end

  it('are a server\'s', function()
    local ok, err = clientContext():setTicketKeys(a)
    assert.is_nil(ok)
    assert.equal('ERR_DTLS_CONFIG', err.code)
  end)
end)

describe('the depth of a chain', function()
  it('decides who may resume, too', loop.run(function()
    local made, client = serverContext { ca = root.cert, requestCert = true }, clientContext(chained)
    local server = pair.listening { context = made }
    local conn = pair.open(server, nil, { context = client, servername = 'localhost' })
    local session = assert(conn:getSession())
    pair.close(conn)
    assert.is_true(made:setVerify { depth = 0 })
    local refused = pair.record(server, 'clientError')
    conn = pair.client(server, { context = client, servername = 'localhost', session = session })
    assert.equal('CERT_CHAIN_TOO_LONG', refused.wait 'clientError'[2].reason)
    pair.close(conn, server)
  end))
end)

describe('a context', function()
  it('tells what it is set to', function()
    local made = serverContext {
      ciphers = CHACHA .. ':' .. AES128, options = { 'NO_TICKET' }, modes = { 'RELEASE_BUFFERS' }, requestCert = true,
    }
    assert.same({
      role = 'server', ciphers = { CHACHA, AES128 }, minVersion = 'DTLSv1.2', maxVersion = 'DTLSv1.2',
      options = { 'NO_TICKET', 'CIPHER_SERVER_PREFERENCE', 'NO_COMPRESSION', 'NO_QUERY_MTU', 'NO_RENEGOTIATION' },
      modes = { 'AUTO_RETRY', 'RELEASE_BUFFERS' }, verify = { mode = { 'PEER', 'FAIL_IF_NO_PEER_CERT' } },
    }, made:info())
    assert.is_true(made:setVerify { mode = 'PEER', depth = 3 })
    assert.is_true(made:clearOptions { 'NO_TICKET', 'CIPHER_SERVER_PREFERENCE' })
    assert.is_true(made:setCiphers(AES256))
    assert.same({ mode = { 'PEER' }, depth = 3 }, made:info().verify)
    assert.same({ 'NO_COMPRESSION', 'NO_QUERY_MTU', 'NO_RENEGOTIATION' }, made:info().options)
    assert.same(made:info().options, made:options())
    assert.same({ AES256 }, made:info().ciphers)
    assert.same({ 'PEER' }, clientContext():info().verify.mode)
    assert.equal('client', clientContext():info().role)
    assert.same({}, serverContext():info().verify.mode)
  end)

  it('is changed without a word to the connections that are open, and to other contexts', loop.run(function()
    local made, other = serverContext(), serverContext()
    local untouched = other:info()
    local server, beside = pair.echo(pair.listening { context = made }), pair.listening { context = other }
    local client = clientContext()
    local conn, accepted = pair.open(server, nil, { context = client })
    for _, context in ipairs { made, client } do
      assert.is_true(context:setCiphers(CHACHA))
      assert.is_true(context:setGroups 'P-384')
      assert.is_true(context:setSigalgs 'ECDSA+SHA384')
      assert.is_true(context:setOptions { 'NO_EXTENDED_MASTER_SECRET', 'NO_TICKET' })
      assert.is_true(context:setVerify { mode = { 'PEER', 'FAIL_IF_NO_PEER_CERT' }, depth = 0 })
    end
    assert.is_true(pair.roundTrip(conn, 'still here'))
    for _, each in ipairs { conn, accepted } do
      assert.equal(AES128, suite(each))
      assert.equal('extended', masterSecret(each))
      assert.is_nil(table.concat(each:options(), ' '):find 'NO_TICKET')
    end
    assert.same(untouched, other:info())
    assert.equal(AES128, outcome(beside, clientContext(), suite))
    pair.close(conn, server, beside)
  end))
end)
