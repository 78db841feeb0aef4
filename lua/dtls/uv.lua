--- luv, by the name that the program has built it in under: luvi up to 2.14 has `uv` alone, 2.15 and later have both names, and LuaJIT
--- loads `luv` from a file. A luv that is built in must win: the loop of a second one would never run.

local builtIn = package.loaded.uv or package.preload.uv

return require(builtIn and 'uv' or 'luv')
