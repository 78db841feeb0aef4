--- A whole life of a server and a client, again and again, each time with another allocation of libcrypto that fails.
--- For the processes of spec/support/faults.lua.

local faults = require 'spec.support.faults'
assert(faults.C.faults_own_memory(), 'libcrypto has allocated already')

local ffi = require 'ffi'
local uv = require 'luv'
local dtls = require 'dtls'
local loop = require 'spec.support.loop'
local memory_store = require 'spec.support.memory_store'
local pair = require 'spec.support.pair'
local tick = require 'dtls.tick'

local shortage = {}

-- What libcrypto leaks itself when it gets no memory, by the functions of it that were at work. Nothing but a leak is
-- excused, and what was excused is returned. The list was made with 3.0; with other versions a leak is told only.
local theirs = {
  'EVP_CIPHER_fetch', 'EVP_MD_fetch', 'SSL_CTX_new_ex', -- a method that was made and could not be kept
  'EC_GROUP_new_by_curve_name_ex', 'X509_get_extension_flags',
  'OSSL_ENCODER_do_all_provided', 'OSSL_ENCODER_CTX_new_for_pkey', 'OSSL_DECODER_do_all_provided', 'OSSL_DECODER_CTX_add_extra',
  'ASN1_item_d2i_ex', -- what a template had decoded when the next of its fields failed
}
local listed = dtls.OPENSSL.number < 0x30100000

-- ── scenarios: options(state) → server's, client's ──

local psk = { identity = 'me', key = 'secret' }
local pem = pair.identity

local scenarios = {}

function scenarios.psk()
  return { psk = { me = 'secret' } }, { psk = psk }
end

-- The application answers for itself, and each question holds the handshake.
function scenarios.asked()
  return { psk = function() return 'secret' end, pskIdentityHint = 'hint' }, { psk = function() return 'me', 'secret' end }
end

function scenarios.certificate(state)
  return {
    cert = pem.cert, key = pem.key, ALPNProtocols = { 'one', 'two' }, srtpProfiles = { 'SRTP_AES128_CM_SHA1_80' }, keylog = true,
    SNICallback = function() return { cert = pem.cert, key = pem.key } end,
    requestCert = true, ca = pem.cert,
  }, {
    cert = pem.cert, key = pem.key, ALPNProtocols = { 'two' }, srtpProfiles = { 'SRTP_AES128_CM_SHA1_80' },
    ca = pem.cert, servername = 'localhost', session = state.session,
    checkServerIdentity = function(_, cert) return not (cert and cert.subject.CN == 'localhost') and 'another one' or nil end,
  }
end

function scenarios.store(state)
  local store = state.store or {}
  state.store = store
  return {
    cert = pem.cert, key = pem.key,
    sessionStore = memory_store(store),
  }, { fingerprint = pem.fingerprint, session = state.session }
end

-- Everything that a connection can be asked.
local function examine(conn, state)
  conn:exportKeyingMaterial(32, 'EXTRACTOR-test')
  local cert = conn:getPeerCertificate(true)
  if cert then
    assert(cert.pem == pem.cert and cert.fingerprint256 == pem.fingerprint and cert.subjectaltname == 'DNS:localhost', 'half a certificate')
  end
  local key = conn:getPeerPublicKey()
  assert(not key or key.pem == pem.publicKey and #key.raw == 91 and #key.fingerprint256 == 95 and key.keyType == 'EC', 'half a key')
  conn:getCipher()
  state.session = conn:getSession() or state.session
end

-- One life; 'ok', or the text of the error.
local function live(scenario, state, done)
  local for_server, for_client = scenarios[scenario](state)
  local ends = 1
  local result
  local function ended()
    ends = ends - 1
    if ends == 0 then tick(done, result) end
  end
  local server, conn
  local function finish(what)
    if result then return end
    result = what
    if conn then conn:destroy() end
    if server then
      ends = ends + 1
      server:on('close', ended)
      server:destroy()
    end
    ended()
  end
  local timers = { retransmitTimeout = 20, handshakeTimeout = 300 * math.min(loop.patience, 4) }
  local err, ok
  server, err = dtls.createServer(pair.with(for_server, timers))
  if not server then return finish(tostring(err)) end
  server:on('connection', function(accepted)
    accepted:on('message', function(data) accepted:send(data) end)
    accepted:on('error', function(failed) finish(tostring(failed)) end)
  end)
  server:on('clientError', function() end)
  ok, err = server:listen(0, '127.0.0.1')
  if not ok then return finish(tostring(err)) end
  conn, err = dtls.connect(pair.with(pair.with(for_client, timers), { host = '127.0.0.1', port = server:address().port }))
  if not conn then return finish(tostring(err)) end
  local again = uv.new_timer()
  conn:on('connection', function()
    examine(conn, state)
    again:start(0, 20, function() conn:send 'hello' end)
  end)
  conn:on('message', function(data)
    assert(data == 'hello')
    conn:close()
    finish 'ok'
  end)
  conn:on('error', function(failed) finish(tostring(failed)) end)
  ends = ends + 1
  conn:on('close', function()
    again:close()
    ended()
  end)
end

local function run(scenario, state)
  if scenario == 'selfSigned' then
    local made, err = dtls.selfSigned { type = state.type, altNames = { 'localhost', '127.0.0.1' } }
    if not made then return tostring(err) end
    for _, text in ipairs { made.cert, made.key, made.publicKey } do assert(text:find '%-\n$', 'half a PEM text') end
    assert(#made.fingerprint == 95, 'half a fingerprint')
    return 'ok'
  end
  return loop.call(function(done) live(scenario, state, done) end, 'the end of a life')
end

-- ── sweeping ──

local function blocks()
  collectgarbage()
  collectgarbage()
  return tonumber(faults.C.faults_blocks())
end

local function excuse(where)
  for _, name in ipairs(theirs) do
    if where:find(' ' .. name .. '+', 1, true) then return name end
  end
end

--- Runs the scenario with its n-th allocation failing, and the width - 1 after it, for every step-th n. `within`: of
--- those for that function of OpenSSL's, and at most 8.
---@return integer lives how many had a failure
---@return table<string, integer> excused leaks of libcrypto
function shortage.sweep(scenario, step, width, state, within)
  state = state or {}
  local excused, lives = {}, 0
  local server = pair.echo(pair.listening { psk = { me = 'secret' } })
  local bystander = pair.open(server, nil, { psk = psk })
  local function clean()
    local result = run(scenario, state)
    assert(result == 'ok', 'a life without a failure: ' .. result)
    pair.roundTrip(bystander, 'unharmed')
    return blocks()
  end
  for _ = 1, 5 do clean() end
  local base = clean()
  local n = 1
  while not within or n <= 8 do
    faults.set('memory', n, width)
    faults.C.faults_within(within)
    local result = run(scenario, state)
    local reached = faults.calls 'memory' >= n
    faults.set 'memory'
    faults.C.faults_within(nil)
    local where = ffi.string(faults.C.faults_where())
    local left = ffi.string(faults.C.faults_leftover())
    local about = ('allocation %d: %s\n%s'):format(n, result, where)
    if not reached then break end
    lives = lives + 1
    assert(left == '', about .. 'left in the queue: ' .. left)
    assert(result == 'ok' or result:find '^[%u_]+: ', about)
    local now = clean()
    assert(now >= base, about .. 'freed what it had not allocated')
    if now > base then
      local name = excuse(where) or not listed and 'not listed'
      assert(name, about .. 'leaked ' .. now - base)
      excused[name] = (excused[name] or 0) + 1
      base = now
    end
    n = n + step
  end
  pair.close(bystander, server)
  return lives, excused
end

return shortage
