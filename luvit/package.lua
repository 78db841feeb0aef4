return {
  name = '@OWNER@/dtls',
  version = '@VERSION@',
  description = 'DTLS over UDP: servers and clients',
  tags = { 'luvit', 'dtls', 'udp', 'tls', 'ssl', 'socket' },
  license = 'MIT',
  files = { '*.lua', '$OS-*/core.so' }, -- $ARCH is LuaJIT's name of the processor in lit 3.8, and uname's in 3.9
}
