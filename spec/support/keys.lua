--- The keys of one table or several as a set: name → true.
return function(...)
  local found = {}
  for i = 1, select('#', ...) do
    for name in pairs((select(i, ...))) do found[name] = true end
  end
  return found
end
