--- What is looked at while libssl looks at a hello: names, session ids (callbacks.c), groups and algorithms (placeholder.c). The first
--- byte chooses the server, the rest are the hello's extensions.

package.path = './?.lua'
local core = require 'dtls.core'
local contexts = require 'spec.fuzz.contexts'
local net = net

local server_fd, server_port = net.open()
local client_fd = net.open()

local function vector(bytes, content)
  local size = #content
  return (bytes == 2 and string.char(math.floor(size / 256)) or '') .. string.char(size % 256) .. content
end

local SUITES = '\192\43\192\47\204\169\0\255'

local function hello(cookie, extensions)
  local body = '\254\253' .. ('r'):rep(32) .. vector(1, ('i'):rep(32)) .. vector(1, cookie) .. vector(2, SUITES) .. '\1\0'
    .. vector(2, extensions)
  local sized = vector(2, body)
  local sequence = cookie == '' and '\0\0' or '\0\1'
  local message = '\1\0' .. sized:sub(1, 2) .. sequence .. ('\0'):rep(4) .. sized -- type, length, offset, length of the fragment
  return '\22\254\253' .. ('\0'):rep(8) .. vector(2, message)
end

-- The bytes of the server_name extension; libssl's buffer goes on behind them, where no sanitizer sees a read.
local function server_name(extensions)
  local at = 1
  while at + 3 <= #extensions do
    local size = extensions:byte(at + 2) * 256 + extensions:byte(at + 3)
    if extensions:sub(at, at + 1) == '\0\0' then return extensions:sub(at + 4, at + 3 + size) end
    at = at + 4 + size
  end
end

local function serve(context, asks)
  local server = { endpoint = assert(core.endpoint(context, server_fd, 'shared', { asks_hello = asks })) }
  net.send(client_fd, hello('', ''), server_port)
  server.endpoint:turn(1)
  assert(server.endpoint:next() == nil)
  server.cookie = net.receive(client_fd):sub(-32)
  return server
end

local kinds = {
  contexts.serverWith 'ec', contexts.serverWith 'ed25519', contexts.serverWith('ed448', 'rsa'), contexts.serverWith('rsa-pss', 'ed25519'),
}

local function greet(server, extensions)
  net.send(client_fd, hello(server.cookie, extensions), server_port)
  server.endpoint:turn(1)
  if server.endpoint:next() ~= 'hello' then return end -- malformed
  local association = assert(server.endpoint:accept())
  local _, err, name, id = association:handshake()
  if err == 'ask_hello' then
    if name then
      assert(#name >= 1 and #name <= 255 and not name:find '%z', 'a name that is none')
      assert(server_name(extensions):sub(6, 5 + #name):lower() == name, 'a name that was not said')
    end
    assert(id == ('i'):rep(32), 'another session id than the one in the hello')
    association:answer_hello()
    association:handshake()
  end
  association:close()
end

-- Each input has a server of its own: of one server an address gets one flight in a retransmission interval.
return function(data)
  if #data == 0 then return end
  net.fix()
  local which = data:byte() % (2 * #kinds)
  local server = serve(kinds[math.floor(which / 2) + 1], which % 2 == 1)
  greet(server, data:sub(2))
  server.endpoint:close()
  repeat until not net.receive(client_fd)
end
