--- Tables in Markdown: printed while they are measured, and put into documents between comments that have their names.

local median = require 'median'

local report = {}
local blocks, current = {}, nil

local function put(line)
  print(line)
  table.insert(current, line)
end

local function begin(name)
  current = {}
  blocks[name] = current
end

--- Begins the table of that name, with its headings.
---@param name string
---@param ... string
function report.begin(name, ...)
  begin(name)
  print(('\n── %s ──\n'):format(name))
  report.row(...)
  put('|' .. (' --- |'):rep(select('#', ...)))
end

---@param ... string
function report.row(...) put('| ' .. table.concat({ ... }, ' | ') .. ' |') end

--- A sentence below the table that was begun last.
function report.add(text)
  put ''
  put(text)
end

--- In the place of a table of that name, a sentence.
function report.text(name, text)
  begin(name)
  put(text)
end

function report.number(value)
  return (value < 10 and '%.2f' or value < 100 and '%.1f' or '%.0f'):format(value)
end

function report.rate(per_second)
  return per_second < 10000 and ('%.0f'):format(per_second) or ('%.0fk'):format(per_second / 1000)
end

--- "median (least to most) · ratio"; without a reference it is one.
---@param values number[]
---@param reference? number
function report.cell(values, reference)
  if #values == 0 then return 'failed' end
  local middle, spread = median(values), ''
  if #values > 1 then
    spread = (' (%s to %s)'):format(report.number(math.min(unpack(values))), report.number(math.max(unpack(values))))
  end
  return ('%s%s · **%.2f**'):format(report.number(middle), spread, middle / (reference or middle))
end

-- The text with each table that it has a place for, and the names of those tables are noted in `placed`.
local function fill(text, placed)
  for name, lines in pairs(blocks) do
    local _, from = text:find(('<!-- bench: %s -->'):format(name), 1, true)
    local to = from and text:find('<!-- bench end -->', from, true)
    if to then
      text = text:sub(1, from) .. '\n\n' .. table.concat(lines, '\n') .. '\n\n' .. text:sub(to)
      placed[name] = true
    end
  end
  return text
end

--- Puts each table in its place in the documents.
---@param documents string[]
function report.write(documents)
  local placed, texts = {}, {}
  for _, path in ipairs(documents) do
    local file = assert(io.open(path))
    texts[path] = fill(file:read '*a', placed)
    file:close()
  end
  for name in pairs(blocks) do assert(placed[name], 'no document has a place for the table ' .. name) end
  for path, text in pairs(texts) do
    local file = assert(io.open(path, 'w'))
    file:write(text)
    file:close()
  end
end

return report
