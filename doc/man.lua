-- A filter of pandoc's for manual pages: headings in capitals, no links, and a text that stands below its option is indented.

function Header(header)
  return header:walk { Str = function(str) return pandoc.Str(pandoc.text.upper(str.text)) end }
end

function Link(link) return link.content end

function Para(para)
  local term, rest = pandoc.List(), pandoc.List()
  local break_found = false
  for _, inline in ipairs(para.content) do
    if inline.t == 'LineBreak' and not break_found then
      break_found = true
    else
      (break_found and rest or term):insert(inline)
    end
  end
  if break_found then return pandoc.DefinitionList { { term, { { pandoc.Para(rest) } } } } end
end
