--- Steps that targets with a client and a server have in common, by name: what happens next in a world (world.lua), from an
--- input that says the rest. Each target has a list of its own, whose order its inputs rely on.

local steps = {}

function steps.turn(_, w) w:run(1) end

function steps.turns(_, w) w:run(20) end

--- The next datagram to one end is delivered.
function steps.deliver(input, w)
  local role = input:role()
  local data = w:take(role)
  if data then w:deliver(role, data) end
end

--- The next datagram to one end is lost.
function steps.lose(input, w)
  w.harmed = true
  w:take(input:role())
end

--- What applications were asked for is answered.
function steps.answer(_, w) w:answerAll() end

--- Time goes by. An alert that nobody contradicts for so long is believed.
function steps.wait(input, w)
  w.harmed = true
  w:wait(2 ^ (input:byte() % 17))
end

--- One end sends a message.
function steps.say(input, w) w:say(input:role()) end

--- One end closes.
function steps.part(input, w)
  w.harmed = true
  w:part(input:role())
end

return steps
