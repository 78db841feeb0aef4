-- fork(): what parent and child may do with the associations that there were.

local child = require 'spec.support.child'

describe('after fork()', function()
  it('a connection of the parent refuses to send in the child and goes on in the parent', function()
    local text, errors, status = child.run([[
      local ffi, uv, dtls = require 'ffi', require 'luv', require 'dtls'
      ffi.cdef 'int fork(void); void _exit(int); int waitpid(int, int *, int);'
      local own = assert(dtls.selfSigned())
      local server = assert(dtls.createServer { cert = own.cert, key = own.key })
      assert(server:listen(0, '127.0.0.1'))
      local conn = assert(dtls.connect { host = '127.0.0.1', port = server:address().port, fingerprint = own.fingerprint })
      server:on('connection', function(accepted)
        accepted:on('message', function(data)
          print('got ' .. data)
          conn:destroy()
          accepted:destroy()
          server:destroy()
        end)
      end)
      conn:on('connection', function()
        local pid = ffi.C.fork()
        if pid == 0 then
          local ok, err = conn:send 'in the child'
          ffi.C._exit(not ok and err.code == 'ERR_DTLS_FORKED' and 7 or 1)
        end
        local result = ffi.new 'int[1]'
        ffi.C.waitpid(pid, result, 0)
        print(result[0] / 256)
        conn:send 'in the parent'
      end)
      uv.run()
    ]])
    assert.same({ '7\ngot in the parent\n', '', 0 }, { text, errors, status })
  end)
end)
