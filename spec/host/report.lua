-- Loads the core under the name given and tells on which OpenSSL it runs; for luajit and for the hosts.

local arguments = rawget(_G, 'args') or arg -- luvit counts the script itself
local core = require(arguments[#arguments])
local openssl = core.openssl()

print(('linkage=%s number=%d text=%s'):format(openssl.linkage, openssl.number, openssl.text))
