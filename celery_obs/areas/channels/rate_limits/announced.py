"""
What a channel itself says of its limits, in the headers of its answers: kept in a hash of ours, so that the whole cluster heeds what one call was told.

The Lua here is part of the scripts that decide about calls.  It needs *now*, in microseconds.
"""

from __future__ import annotations

from typing import Final


__all__ = ["ADVERTISED", "LEARN"]


ADVERTISED: Final = """
local function told(key, cost, take)
  local found = redis.call('HMGET', key, 'told_until', 'told_left')
  if not found[1] then return 0 end
  local ends, left = tonumber(found[1]), tonumber(found[2]) or 0
  if not ends or ends <= now or ends > now + 90000000000 then
    redis.call('HDEL', key, 'told_until', 'told_left')
    return 0
  end
  if left < cost then return ends - now end
  if take then redis.call('HINCRBY', key, 'told_left', -cost) end
  return 0
end
"""
"""
Lua that tells how long the channel itself said to wait, in microseconds, and otherwise takes *cost* from what it said is left.

*told_until* is when its window ends, *told_left* what may be called until then; after a ``Retry-After`` that is nothing.
"""

LEARN: Final = """
local function learn(key, left, ends)
  local found = redis.call('HMGET', key, 'told_until', 'told_left')
  local known, rest = tonumber(found[1]), tonumber(found[2]) or 0
  if known and known > now and known < now + 90000000000 then
    if left <= 0 then
      if rest <= 0 then ends = math.max(ends, known) end
    elseif rest <= 0 then
      return
    elseif ends <= known + 1000000 then
      left, ends = math.min(left, rest), known
    end
  end
  redis.call('HSET', key, 'told_until', ends, 'told_left', math.max(0, left))
end
"""
"""
Lua that takes in what an answer said is left until when.  Answers overtake each other: of one window the lesser number counts, and what is to wait waits.
"""
