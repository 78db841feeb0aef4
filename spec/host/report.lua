-- Loads the core under the name given and tells on which OpenSSL it runs; for luajit and for the hosts.

local core = require((rawget(_G, 'args') or arg)[1])
local openssl = core.openssl()

print(('linkage=%s number=%d text=%s'):format(openssl.linkage, openssl.number, openssl.text))
