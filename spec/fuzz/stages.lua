-- Associations at every point that the screen and the hold distinguish, for screen.c. The worlds that they belong to stay.

package.path = './?.lua'
local world = require 'spec.fuzz.world'

local stages, worlds = {}, {}

-- Runs so many turns of the network; takes the ends that are there then.
local function stage(kind, turns)
  local w = world.new { kind = kind, demux = 'shared', at_once = true }
  w:run(turns)
  worlds[#worlds + 1] = w
  for _, party in ipairs { w.client, w:party 'server' } do stages[#stages + 1] = party.association end
end

stage('certificate', 0)  -- a client before the cookie
stage('psk_asked', 2)    -- after it; a server that waits for ClientKeyExchange with the identity
stage('certificate', 2)
stage('certificate', 20) -- open
stage('ccm8', 20)

stages.worlds = worlds
return stages
