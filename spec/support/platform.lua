--- What the core was built with of that which not every system has (src/base/platform.h): a test that needs more than there is
--- is pending, with its reason, and counted as skipped.

local core = require 'dtls.core'

local platform = {}

local REASONS = {
  reuseport = 'sockets that share a port (SO_REUSEPORT)',
  local_address = 'the local address of a datagram (IP_PKTINFO)',
  drop_count = 'the count of what a socket has dropped (SO_MEMINFO)',
  error_events = 'an event for a pending error (SO_SELECT_ERR_QUEUE)',
  whole_size = 'the size of a datagram that was cut (MSG_TRUNC)',
  segments = 'datagrams that the kernel cuts (UDP_SEGMENT)',
  coalescing = 'datagrams that the kernel puts together (UDP_GRO)',
  epoll = 'one descriptor that tells of many sockets (epoll)',
  mmsg = 'several datagrams by one system call (sendmmsg)',
  zero_pages = 'memory that is given back and comes again as zeroes (MADV_DONTNEED)',
  symbol_versions = 'versions of symbols (dlvsym)',
}

--- Whether the core has a feature.
---@param feature string as core.platform() names it
---@return boolean
function platform.has(feature)
  local has = core.platform()[feature]
  assert(has ~= nil and REASONS[feature], feature)
  return has
end

--- A test's body, or in its place the reason why it cannot run here.
---@param feature string|false false: it needs none
---@param body function
---@return function
function platform.needs(feature, body)
  if not feature or platform.has(feature) then return body end
  local environment = getfenv(2) -- of the spec, which has busted's `pending`
  return function() environment.pending('this build does without ' .. REASONS[feature]) end
end

return platform
