local admission = require 'dtls.admission'
local proxy = require 'spec.support.proxy'

describe('the handshake that is evicted', function()
  it('is the oldest half-open handshake of the host with the most half-open handshakes', function()
    local all = admission.new { maxHandshakes = 3 }
    all:enter('honest', 'h')
    for i = 1, 3 do all:enter(i, 'greedy') end
    assert.is_true(all:isCrowded())
    assert.equal(1, all:evictable())
    all:leave(1)
    assert.is_false(all:isCrowded())
    assert.equal(2, all:evictable())
  end)

  it('is, of hosts with equally many half-open handshakes, one of the host that has had so many for longest', function()
    local all = admission.new { maxHandshakes = 1 }
    all:enter('first', 'a')
    all:enter('second', 'b')
    assert.equal('first', all:evictable())
    all:leave 'first'
    assert.equal('second', all:evictable())
  end)

  it('is never a handshake that has completed', function()
    local all = admission.new { maxHandshakes = 1 }
    all:enter('open', 'a')
    all:completed 'open'
    all:completed 'open'
    assert.is_nil(all:evictable())
    all:enter('half-open', 'a')
    assert.equal('half-open', all:evictable())
    all:leave 'open'
    all:leave 'half-open'
    assert.is_nil(all:evictable())
    assert.same({ 0, 0, 0 }, { all:counts() })
  end)

  it('is the right one after 20000 handshakes that begin, complete and end in random order', function()
    local random = proxy.random(8)
    local all = admission.new { maxHandshakes = 1 }
    local places, serial = {}, 0 -- the associations that exist, oldest first: {conn=, host=, halfOpen=}
    local function index() return math.ceil(random() * #places) end
    for _ = 1, 20000 do
      local what = random()
      if what < 0.5 and #places < 60 or #places == 0 then
        serial = serial + 1
        local host = 'host ' .. math.floor(random() * random() * 12)
        places[#places + 1] = { conn = serial, host = host, halfOpen = true }
        all:enter(serial, host)
      elseif what < 0.65 then
        local place = places[index()]
        place.halfOpen = false
        all:completed(place.conn)
      else
        all:leave(table.remove(places, index()).conn)
      end
      local halfOpen, hosts, oldest, most, total, count = {}, {}, {}, 0, 0, 0
      for _, place in ipairs(places) do
        if not hosts[place.host] then count = count + 1 end
        hosts[place.host] = true
        if place.halfOpen then
          total = total + 1
          halfOpen[place.host] = (halfOpen[place.host] or 0) + 1
          oldest[place.host] = oldest[place.host] or place.conn
          most = math.max(most, halfOpen[place.host])
        end
      end
      assert.same({ #places, total, count }, { all:counts() })
      local found, good = all:evictable(), total == 0
      for host, number in pairs(halfOpen) do good = good or number == most and oldest[host] == found end
      assert.is_true(good and (found == nil) == (total == 0), found)
    end
  end)
end)

describe('a new association', function()
  it('is admitted while maxConnections and maxConnectionsPerHost leave room', function()
    local all = admission.new { maxConnections = 3, maxConnectionsPerHost = 2, maxHandshakes = 9 }
    all:enter(1, 'a')
    assert.is_true(all:admits('a', false))
    all:enter(2, 'a')
    assert.is_false(all:admits('a', false))
    assert.is_true(all:admits('b', false))
    all:enter(3, 'b')
    assert.is_false(all:admits('c', false))
    all:leave(1)
    assert.is_true(all:admits('a', false))
  end)

  it('is admitted in place of one from the same address and port, except while the server is busy', function()
    local all = admission.new { maxConnections = 1, maxHandshakes = 9 }
    all:enter(1, 'a')
    assert.is_true(all:admits('a', true))
    all:setBusy(true)
    assert.is_false(all:admits('a', true))
    assert.is_false(all:admits('b', false))
    all:setBusy(false)
    assert.is_true(all:admits('a', true))
  end)
end)
