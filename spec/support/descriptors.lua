--- The descriptors that this process has open.

local uv = require 'luv'

local descriptors = {}

--- How many there are.
function descriptors.count()
  local count = 0
  for _ in uv.fs_scandir_next, assert(uv.fs_scandir '/proc/self/fd') do count = count + 1 end
  return count
end

return descriptors
