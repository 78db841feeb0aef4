---@param values number[]
---@return number? # the lower one of two in the middle; nil: there are no values
return function(values)
  local sorted = { unpack(values) }
  table.sort(sorted)
  return sorted[math.ceil(#sorted / 2)]
end
