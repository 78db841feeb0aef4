local dtls = require 'dtls'
local loop = require 'spec.support.loop'

for _, demux in ipairs { 'connected', 'shared' } do
  for _, ip in ipairs { '127.0.0.1', '::1' } do
    describe(('an echo server on %s, %s sockets,'):format(ip, demux), function()
      it('talks with its client', loop.run(function()
        local pair = assert(dtls.selfSigned())
        local server = assert(dtls.createServer { cert = pair.cert, key = pair.key, demux = demux })
        server:on('connection', function(conn) conn:on('message', function(data) conn:send(data) end) end)
        assert(server:listen(0, ip))
        loop.event(server, 'listening')
        local conn = assert(dtls.connect { host = ip, port = server:address().port, fingerprint = pair.fingerprint })
        loop.event(conn, 'connection')
        assert(conn:send('hello'))
        assert.equal('hello', loop.event(conn, 'message')[1])
        conn:close()
        loop.event(conn, 'close')
        loop.call(function(done) server:close(done) end, 'the server to close')
      end))
    end)
  end
end
