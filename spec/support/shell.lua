--- Runs a shell command, without the sanitizers' LD_PRELOAD, until it ends.
---@param command string
---@return string output stdout and stderr
---@return integer status
return function(command)
  local pipe = assert(io.popen('( unset LD_PRELOAD; ' .. command .. ' ) 2>&1; echo "status=$?"'))
  local output = pipe:read '*a'
  pipe:close()
  local text, status = output:match '^(.*)status=(%d+)\n$'
  return text, tonumber(status)
end
