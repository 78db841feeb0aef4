-- A filter of pandoc's: documents lead to each other as pages.
function Link(link)
  if not link.target:find '^%a+:' then link.target = link.target:gsub('%.md$', '.html'):gsub('%.md#', '.html#') end
  return link
end
