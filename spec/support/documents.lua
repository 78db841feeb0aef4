--- The paths of the documents in Markdown.

local shell = require 'spec.support.shell'

---@return string[]
return function()
  local found = {}
  for path in shell 'ls README.md CONTRIBUTING.md CHANGELOG.md doc/*.md examples/README.md':gmatch '%S+' do
    found[#found + 1] = path
  end
  return found
end
