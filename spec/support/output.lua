-- busted's usual output, closed by one line for scripts: "N passed, N failed[, N skipped]". An error outside a test (a
-- file that does not load, a failing setup) counts as failed, and so does a run without a single test.
local busted = require 'busted'

-- busted forgets what a spec required when it goes on to the next one, and a luv that is forgotten takes its loop along:
-- the next require would find the old loop, freed. This file is loaded outside of all that.
require 'luv'

return function(options)
  local handler = require('busted.outputHandlers.' .. options.defaultOutput)(options)
  local passed, failed, skipped = 0, 0, 0

  -- once for each round of --repeat
  busted.subscribe({ 'suite', 'end' }, function()
    passed = passed + handler.successesCount
    failed = failed + handler.failuresCount + handler.errorsCount
    skipped = skipped + handler.pendingsCount
    return nil, true
  end)

  -- busted is about to leave. Doing it here keeps the line last: its own way out of a failed run is error(), which the
  -- interpreter reports. Closing the state runs every __gc, so that leak checkers see what is really lost.
  busted.subscribe({ 'exit' }, function()
    if passed + failed + skipped == 0 then
      io.write('\nNo test ran.\n')
      failed = 1
    end
    io.write(('\n%d passed, %d failed%s\n'):format(passed, failed, skipped > 0 and (', %d skipped'):format(skipped) or ''))
    os.exit(failed == 0 and 0 or 1, true)
  end)

  return handler
end
