--- Servers and clients for the specs: made in one line, closed in one line.

local dtls = require 'dtls'
local loop = require 'spec.support.loop'

local pair = {}

--- The identity of every server here; clients pin it.
pair.identity = assert(dtls.selfSigned())

pair.strategies = { 'connected', 'shared' }
pair.addresses = { '127.0.0.1', '::1' }

-- busted gives `describe` to the spec that it loads, not to what that requires.
local function group(name, body, ...)
  local arguments = { ... }
  getfenv(body).describe(name, function() body(unpack(arguments)) end)
end

--- The same tests for both demux strategies.
---@param body fun(demux: string)
function pair.eachStrategy(body)
  for _, demux in ipairs(pair.strategies) do
    group(('(%s sockets)'):format(demux), body, demux)
  end
end

--- The same tests for both demux strategies, on IPv4 and on IPv6.
---@param body fun(demux: string, ip: string)
function pair.each(body)
  for _, demux in ipairs(pair.strategies) do
    for _, ip in ipairs(pair.addresses) do
      group(('(%s sockets, %s)'):format(demux, ip), body, demux, ip)
    end
  end
end

--- One table of several, any of which may be nil; the later ones count.
function pair.merged(...)
  local all = {}
  for i = 1, select('#', ...) do
    for name, value in pairs((select(i, ...)) or {}) do all[name] = value end
  end
  return all
end

local merged = pair.merged

--- Both, as a table of its own; `more` wins.
function pair.with(options, more)
  return merged(merged({}, options), more)
end

--- The credentials among the options: of what pki's certificate() gave, with the chain behind it.
function pair.as(entry, ...)
  local texts = { entry.pem.cert }
  for _, each in ipairs { ... } do texts[#texts + 1] = each.pem.cert end
  return { cert = table.concat(texts), key = entry.pem.key }
end

-- Where nothing is lost nothing shall be repeated, also by a slow tool: the defaults, stretched.
local function unhurried(options)
  local stretched = loop.patience > 1 and not (options and options.context)
  return stretched and { retransmitTimeout = 1000 * loop.patience, handshakeTimeout = 30000 * loop.patience } or {}
end

--- A server with the common identity, unless the options bring another one.
function pair.server(options)
  local given = options and (options.cert or options.context or options.psk or options.rawPublicKey)
  local identity = given and {} or { cert = pair.identity.cert, key = pair.identity.key }
  return assert(dtls.createServer(merged(unhurried(options), identity, options)))
end

--- The same, listening on a free port; the port is in `server.port`.
function pair.listening(options, ip)
  local server = pair.server(options)
  assert(server:listen(0, ip or '127.0.0.1'))
  server.ip, server.port = ip or '127.0.0.1', server:address().port
  return server
end

--- Answers every message with itself.
function pair.echo(server)
  server:on('connection', function(conn)
    conn:on('message', function(data) conn:send(data) end)
  end)
  return server
end

--- A client of a server, a proxy, or anything else with ip and port. Not yet connected.
function pair.client(target, options)
  local defaults = { host = target.ip, port = target.port }
  if not (options and (options.fingerprint or options.context or options.ca or options.psk or options.rawPublicKey)) then
    defaults.fingerprint = pair.identity.fingerprint
  end
  local conn = assert(dtls.connect(merged(unhurried(options), defaults, options)))
  if target.hear then target:hear(conn) end
  return conn
end

--- Waits until both ends are open; returns the client's and the server's connection.
function pair.open(server, target, options)
  local accepted, done
  local function opened(conn) accepted = accepted or conn end
  server:on('connection', opened)
  local conn = pair.client(target or server, options)
  local function failed(err) done = done or err end
  conn:once('connection', function() done = done or true end)
  conn:on('error', failed)
  loop.till(function() return done and (done ~= true or accepted) end, 'both ends to open')
  server:removeListener('connection', opened)
  conn:removeListener('error', failed)
  if done ~= true then error(tostring(done), 2) end
  return conn, accepted
end

--- One handshake, to its end at either side: {client =, server =}, each true when it completed, or its error. `inspect`
--- may look at the two connections of one that did.
---@param inspect fun(conn: dtls.Connection, accepted: dtls.Connection)?
function pair.attempt(serverOptions, clientOptions, inspect)
  local server = pair.listening(merged({ retransmitTimeout = 50 }, serverOptions))
  local ours = pair.record(server, 'connection', 'clientError')
  local conn = pair.client(server, merged({ retransmitTimeout = 50 }, clientOptions))
  local theirs = pair.record(conn, 'connection', 'error')
  loop.till(function() return ours[1] and theirs[1] end, 'both ends to be done')
  local outcome = {
    server = ours[1][1] == 'connection' or ours[1][2], client = theirs[1][1] == 'connection' or theirs[1][2],
  }
  if inspect and outcome.client == true and outcome.server == true then inspect(conn, ours[1][2]) end
  pair.close(conn, server)
  return outcome
end

--- Whether it is authorized, and why not.
function pair.verdict(conn)
  return { conn.authorized, conn.authorizationError }
end

--- Closes connections, servers, proxies and sockets in this order, each once the one before is closed.
function pair.close(...)
  for i = 1, select('#', ...) do
    local each = select(i, ...)
    if each then loop.call(function(done) each:close(done) end, 'close of number ' .. i) end
  end
end

--- Sends a message and waits until it comes back.
function pair.roundTrip(conn, text)
  local back
  local function heard(data) back = back or data == text end
  conn:on('message', heard)
  assert(conn:send(text))
  loop.till(function() return back end, ('the echo of %q'):format(text))
  conn:removeListener('message', heard)
  return true
end

--- Keeps what an emitter says: a list of {name, arguments…} with methods.
function pair.record(emitter, ...)
  local list = {}
  for _, name in ipairs { ... } do
    emitter:on(name, function(...) list[#list + 1] = { name, ... } end)
  end
  --- The names in order, as one string.
  function list.names()
    local names = {}
    for i, each in ipairs(list) do names[i] = each[1] end
    return table.concat(names, ' ')
  end
  --- The first of a name.
  function list.find(name)
    for _, each in ipairs(list) do
      if each[1] == name then return each end
    end
  end
  --- Waits for the first of a name, which may have been already.
  function list.wait(name, ms)
    return loop.till(function() return list.find(name) end, name, ms)
  end
  return list
end

return pair
