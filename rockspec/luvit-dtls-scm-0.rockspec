rockspec_format = '3.0'
package = 'luvit-dtls'
version = 'scm-0'

source = { url = 'git+https://github.com/luvit/luvit-dtls.git' }

description = {
  summary = 'DTLS over UDP for luvit, and for LuaJIT with luv',
  detailed = 'DTLS 1.2 servers and clients on the libuv event loop, with OpenSSL: a C core and a thin Lua layer.',
  license = 'MIT',
}

supported_platforms = { 'linux' }

dependencies = {
  'lua == 5.1',
  'luv >= 1.36',
}

external_dependencies = {
  OPENSSL = { header = 'openssl/ssl.h', library = 'ssl' },
}

-- The Makefile builds it, as everywhere: the core needs its own flags (hidden symbols, hardening).
build = {
  type = 'make',
  build_target = 'all',
  build_variables = {
    CC = '$(CC)',
    CFLAGS = '$(CFLAGS)',
    LUA_INCDIR = '$(LUA_INCDIR)',
    SSL_CFLAGS = '-I$(OPENSSL_INCDIR)',
    SSL_LIBS = '-L$(OPENSSL_LIBDIR) -lssl -lcrypto',
  },
  install_variables = {
    LUADIR = '$(LUADIR)',
    LIBDIR = '$(LIBDIR)',
  },
}
