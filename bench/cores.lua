--- The cores that this process may run on, by the numbers that taskset knows them by.

local cores = {}
for line in io.lines '/proc/self/status' do
  for first, last in (line:match '^Cpus_allowed_list:%s*(.*)' or ''):gmatch '(%d+)%-?(%d*)' do
    for core = tonumber(first), tonumber(last) or tonumber(first) do table.insert(cores, core) end
  end
end
return cores
