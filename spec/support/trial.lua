--- One association after the other, from handshake to close, while the system fails: each must end well or with an error,
--- and nobody else may notice. For the processes of spec/support/faults.lua.

local uv = require 'luv'
local faults = require 'spec.support.faults'
local loop = require 'spec.support.loop'
local pair = require 'spec.support.pair'

local trial = {}

-- An association takes about 20 turns, of which one of the peers' sockets counts twice, and 60 calls; a loop that spins takes
-- thousands within one retransmission.
local TURNS_MAX, CALLS_MAX = 400, 2000
local WAIT = 25

trial.deadline = 400 * loop.patience

--- What an error counts as in stats().drops.
trial.reasons = setmetatable({
  EAGAIN = 'EAGAIN', EINTR = 'EAGAIN', ENOBUFS = 'ENOBUFS', ENOMEM = 'ENOBUFS', EMSGSIZE = 'EMSGSIZE', ECONNREFUSED = 'ECONNREFUSED',
}, { __index = function() return 'EHOSTUNREACH' end })

local function timers(options)
  return pair.with({ retransmitTimeout = WAIT, handshakeTimeout = trial.deadline }, options)
end

--- A server that echoes, and a client that is open the whole time: `server.bystander`.
function trial.server(options)
  local server = pair.echo(pair.listening(timers(pair.with({ psk = { me = 'secret' } }, options))))
  server.errors = pair.record(server, 'clientError')
  server:on('connection', function(conn) conn:on('error', function() end) end)
  server.bystander, server.bystanders = pair.open(server, nil, { psk = { identity = 'me', key = 'secret' } })
  return server
end

--- Runs body(server) in the event loop, with such a server.
---@param body fun(server: dtls.Server)
function trial.run(options, body)
  loop.run(function()
    local server = trial.server(options)
    body(server)
    trial.close(server)
  end)()
end

function trial.client(target, options)
  return pair.client(target, timers(pair.with({ psk = { identity = 'me', key = 'secret' } }, options)))
end

--- A client that has all that it needs and repeats its hello in vain, until server:setBusy(false).
function trial.knocking(server)
  server:setBusy(true)
  local conn = trial.client(server, { handshakeTimeout = 10000 })
  loop.till(function() return (conn:stats().datagramsOut or 0) >= 2 end, 'a client to knock')
  return conn
end

--- Handshake, a message until its echo comes, close.
---@return string outcome 'echo', or the code of the error
---@return table stats the client's
function trial.attempt(server, options)
  faults.set 'turn'
  local conn = trial.client(server, options)
  local failed, heard
  local again = uv.new_timer()
  local function quiet()
    if not again:is_closing() then again:close() end
  end
  conn:on('connection', function()
    again:start(0, WAIT, function() conn:send 'hello' end)
  end)
  conn:on('message', function(data)
    assert(data == 'hello')
    heard = true
    quiet()
    conn:close()
  end)
  conn:on('error', function(err) failed = err.code end)
  loop.event(conn, 'close')
  quiet()
  assert(heard or failed, 'it ended without an error')
  return heard and 'echo' or failed, conn:stats()
end

--- Ends what the server has left of attempts.
function trial.settle(server)
  loop.till(function()
    local left = 0
    for conn in server:connections() do
      if conn ~= server.bystanders then
        left = left + 1
        conn:destroy()
      end
    end
    return left == 0
  end, 'the end of connections')
end

--- That the event loop has not spun since the attempt began.
---@param what string?
function trial.idle(what)
  local turns, calls = faults.calls 'turn', faults.calls 'send' + faults.calls 'receive'
  assert(turns < TURNS_MAX and calls < CALLS_MAX, ('%s: %d turns, %d calls'):format(what or 'an association', turns, calls))
end

--- That the others are well.
function trial.unharmed(server)
  pair.roundTrip(server.bystander, 'still here')
end

--- What `drops` has grown by.
function trial.since(before, after)
  local grown = {}
  for reason, count in pairs(after) do grown[reason] = count - (before[reason] or 0) end
  return grown
end

--- Lets the n-th call of a kind fail, for every n of an association, with each of the errors.
---@param each fun(n: integer, code: string, outcome: string, drops: table) drops: what both ends have counted
---@return integer most of such calls in one association
function trial.sweep(server, kind, errors, each)
  local most = 0
  for _, code in ipairs(errors) do
    local n = 0
    repeat
      n = n + 1
      trial.settle(server)
      local before = server:stats().drops
      faults.set 'send'
      faults.set 'receive'
      faults.set(kind, n, 1, code)
      local outcome, stats = trial.attempt(server)
      trial.idle()
      local reached = faults.calls(kind) >= n
      faults.set(kind)
      trial.settle(server)
      if reached then
        local drops = trial.since(before, server:stats().drops)
        for reason, count in pairs(stats.drops) do drops[reason] = (drops[reason] or 0) + count end
        each(n, code, outcome, drops)
        trial.unharmed(server)
        most = math.max(most, n)
      end
    until not reached
  end
  return most
end

function trial.close(server)
  pair.close(server.bystander, server)
end

return trial
