-- Associations at every point that the record filter and suspended callbacks distinguish, for filter.c. The worlds that they
-- belong to stay.

package.path = './?.lua'
local world = require 'spec.fuzz.world'

local stages = { worlds = {} }

-- Runs so many turns of the network, and takes the ends that are there then.
local function stage(kind, turns)
  local w = world.new { kind = kind, demux = 'shared', at_once = turns > 4 }
  w:run(turns)
  stages.worlds[#stages.worlds + 1] = w
  for _, party in ipairs { w.client, w:party 'server' } do stages[#stages + 1] = party.association end
end

stage('certificate', 0) -- a client before the cookie
stage('certificate', 3) -- it has the cookie; a server that waits for ClientKeyExchange
stage('psk_asked', 3)   -- as those; the key is a question
stage('psk_asked', 4)   -- a client at ServerHelloDone
stage('certificate', 20) -- open
stage('ccm8', 20)

return stages
