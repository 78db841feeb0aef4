--- What connections send during one turn of the event loop leaves together when the turn ends: it costs the kernel a fraction of
--- what each datagram alone costs. The first two messages of a turn leave at once, unless more are known to come. One deferral
--- serves all connections of the loop.

local uv = require 'dtls.uv'
local core = require 'dtls.core'
local handle = require 'dtls.handle'

local deferral = {}

local users = 0 -- connections that may send
local idle -- libuv runs it in every turn, and does not wait as long as it is started
local began -- something is deferred
local sent_at -- ms, the loop's time when the last message was sent that left at once

--- Sends what waits; connections whose sockets take no more watch them until they do.
function deferral.flush()
  local blocked = core.flush()
  if not blocked then return end
  for _, conn in ipairs(blocked) do conn:_awaitRoom() end
end

--- The turn ends.
local function finish()
  if not began then return end
  began = nil
  handle.stop(idle)
  deferral.flush()
end
deferral.finish = finish

-- A loop that runs inside a listener, or the next turn of this one, ends it at the latest.
local function begin()
  if began or users == 0 then return end
  if not idle or idle:is_closing() then idle = uv.new_idle() end
  began = true
  core.defer()
  idle:start(finish)
end

--- There is another connection, until it calls `leave`.
function deferral.join()
  if began and idle:is_closing() then finish() end -- somebody else has closed the handle, which would have ended the turn
  users = users + 1
end

function deferral.leave()
  users = users - 1
  if users > 0 or not idle then return end
  finish()
  handle.close(idle)
  idle = nil
end

--- Datagrams are taken, until `finish`. Many turns pass in a millisecond if each takes a single datagram, and what one has sent says
--- nothing of the next.
function deferral.enter() sent_at = nil end

--- Several datagrams come or go: what is sent from now on can leave together.
deferral.more = begin

--- A message was sent, at that time of the loop: the second of a turn is the first sign that more may follow.
---@param time integer uv.now()
function deferral.sent(time)
  if began then return end
  if sent_at == time then begin() else sent_at = time end
end

return deferral
