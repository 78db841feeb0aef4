--- A session store in memory, for the option sessionStore.
---@param sessions table<string, string>? where the sessions are kept, by session ID
return function(sessions)
  sessions = sessions or {}
  return {
    get = function(id) return sessions[id] end,
    set = function(id, blob) sessions[id] = blob end,
    remove = function(id) sessions[id] = nil end,
  }
end
