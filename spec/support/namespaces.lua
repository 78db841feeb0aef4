--- Hosts of their own for tests: Linux network namespaces, joined by veth pairs. Each lives as long as the process that
--- was started in it first, which ends with the test, whatever happens to that; no name of it is left anywhere.

local uv = require 'luv'
local process = require 'spec.support.process'

local Host = {}
Host.__index = Host

local namespaces = {}

local root = uv.getuid() == 0

-- Runs a shell command to its end. Returns what it printed, or nil and that.
local function run(command)
  local pipe = assert(io.popen(('env -u LD_PRELOAD %s 2>&1 </dev/null; echo status=$?'):format(command)))
  local output, status = pipe:read('*a'):match '^(.*)status=(%d+)\n$'
  pipe:close()
  if status == '0' then return output end
  return nil, ('%s: %s'):format(command, output)
end

--- Why there can be none here, or nil.
---@return string?
function namespaces.missing()
  local ok, why = run 'ip -V'
  if ok then ok, why = run(('unshare %s --net ip link add one type veth peer name other'):format(root and '' or '--map-root-user')) end
  return not ok and 'no network namespaces with veth here: ' .. why or nil
end

--- A host with nothing but its loopback interface. Inside loop.run, as all of this.
---@param first table? another one, whose owner owns this one, too (for users who are not root)
function namespaces.host(first)
  local arguments = { '--net', 'sh', '-c', 'echo ready; exec cat' }
  local self = setmetatable({}, Host)
  if root then
    self.holder = process.spawn('unshare', arguments)
  elseif first then
    self.holder = process.spawn('nsenter', { '--user', '--preserve-credentials', '-t', first.pid, 'unshare', unpack(arguments) })
  else
    self.holder = process.spawn('unshare', { '--map-root-user', unpack(arguments) })
  end
  self.holder:expect 'ready'
  self.pid = tostring(self.holder.pid)
  -- An IPv6 address would be checked for a second before it is used.
  self:run "sh -c 'test ! -d /proc/sys/net/ipv6 || echo 0 | tee /proc/sys/net/ipv6/conf/*/accept_dad'"
  self:ip 'link set lo up'
  return self
end

-- The arguments that make a program run there.
function Host:_enter(...)
  local arguments = root and {} or { '--user', '--preserve-credentials' }
  for _, each in ipairs { '-t', self.pid, '--net', ... } do arguments[#arguments + 1] = each end
  return arguments
end

--- Runs a shell command there. Raises when it fails.
function Host:run(command)
  return assert(run(table.concat(self:_enter(command), ' '):gsub('^', 'nsenter ')))
end

--- The same, of the ip program.
function Host:ip(arguments)
  return self:run('ip ' .. arguments)
end

--- Joins two hosts. Each end is {host, interface, addresses…}, addresses like '10.0.0.1/24'; mtu: of both.
function namespaces.join(one, other, mtu)
  one[1]:ip(('link add %s type veth peer name %s netns %s'):format(one[2], other[2], other[1].pid))
  for _, each in ipairs { one, other } do
    local host, interface = each[1], each[2]
    for i = 3, #each do host:ip(('addr add %s dev %s'):format(each[i], interface)) end
    host:ip(('link set %s mtu %d up'):format(interface, mtu or 1500))
  end
end

--- Starts a program under test there.
---@param under string process.UNDER, or ''
---@param ... string the command and its arguments
function Host:spawn(under, ...)
  return process.spawn('nsenter', self:_enter('sh', process.checked('', under, ...)))
end

return namespaces
