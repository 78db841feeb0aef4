--- An input of a target that is a script: bytes, read from the front. Behind its end they are 0.

local Input = {}
Input.__index = Input

function Input:byte()
  local at = self.at
  self.at = at + 1
  return self.data:byte(at) or 0
end

function Input:short() return self:byte() * 256 + self:byte() end

--- Bytes behind their length.
function Input:bytes()
  local at = self.at + 2
  local size = self:short()
  self.at = at + size
  return self.data:sub(at, at + size - 1)
end

function Input:role() return self:byte() % 2 == 0 and 'server' or 'client' end

function Input:ended() return self.at > #self.data end

---@param data string
return function(data) return setmetatable({ data = data, at = 1 }, Input) end
