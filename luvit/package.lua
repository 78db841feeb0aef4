return {
  name = '@OWNER@/dtls',
  version = '@VERSION@',
  description = 'DTLS over UDP: servers and clients',
  tags = { 'luvit', 'dtls', 'udp', 'tls', 'ssl', 'socket' },
  license = 'MIT',
  files = { '*.lua', '$OS-$ARCH/core.so' },
}
