"""The Lua scripts of :mod:`services.joiner.ledger`: what Redis does in one step."""

from __future__ import annotations

from services.joiner.checkpoint import IS_KNOWN, MOVE

# KEYS: for each reaction its closed mark and its reactions. ARGV: for each its key.
LOOK = """
local seen = {}
for i = 1, #ARGV do
  seen[i] = {redis.call('GET', KEYS[2 * i - 1]), redis.call('HGET', KEYS[2 * i], ARGV[i])}
end
return seen
"""

# KEYS: checkpoint of the reactions, unmatched, late, then closed mark and reactions of each reaction.
# ARGV: checkpoint expected ('': none), checkpoint next, its ttl, ttl of reactions, then impression id, key, value,
# time, closed, what waits in `late` ('': nothing) of each. Texts are compared as numbers: Lua compares strings by the
# server's locale.
STORE = (
    IS_KNOWN
    + """
local n, late = (#KEYS - 3) / 2, false
for i = 1, n do
  if ARGV[6 * i + 3] == '0' and redis.call('EXISTS', KEYS[2 * i + 2]) == 1 then return 'closed' end
end
for i = 1, n do
  local mark, reactions, at = KEYS[2 * i + 2], KEYS[2 * i + 3], 6 * i - 1
  local first = redis.call('HGET', reactions, ARGV[at + 1])
  if not first or tonumber(string.match(first, '^%d+')) > tonumber(string.match(ARGV[at + 2], '^%d+')) then
    redis.call('HSET', reactions, ARGV[at + 1], ARGV[at + 2])
    redis.call('PEXPIRE', reactions, ARGV[4])
  end
  if redis.call('EXISTS', mark) == 0 then redis.call('ZADD', KEYS[2], 'NX', ARGV[at + 3], ARGV[at]) end
  if ARGV[at + 5] ~= '' then
    redis.call('ZADD', KEYS[3], string.match(ARGV[at + 2], '^%d+'), ARGV[at + 5])
    late = true
  end
end
if n > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
if late then redis.call('PEXPIRE', KEYS[3], ARGV[3]) end
"""
    + MOVE
    + "return 'stored'"
)

# KEYS: checkpoint of the marks, checkpoint of the reactions, unmatched, late, then closed mark and reactions of each
# impression. ARGV: checkpoint of the marks expected ('': none), its log, its ttl, window, ttl of marks, log and offset
# up to which late reactions are written, how many of them to return at most, then impression id, offset, time of each.
# Closes from the first on, up to the first that is not due by the watermark *of this moment*: one that was read before
# may be from before a loss. Closes nothing while reactions up to that offset are not all there again, nor while more
# late ones wait than are returned. What is unmatched had reactions: where none are left, Redis has lost them, though it
# has the checkpoint; so it and what follows stay open, and the checkpoint says since when to read again. Returns the
# checkpoint of the reactions, how many are closed, the checkpoint of the marks, the late ones, how many had lost their
# reactions, and for the few impressions where something was found their numbers and what it was: the marks that stood
# there, and the reactions.
CLOSE = (
    IS_KNOWN
    + """
local progress = redis.call('GET', KEYS[2])
local closed, lost, late, earlier, reacted, since, last, newest = 0, 0, {}, {}, {}, nil, nil, nil
local read, watermark, log = string.match((progress or '') .. ':', '^(%d+):(%d+):(%d+):')
if not read then read, watermark = string.match(progress or '', '^(%d+):(%d+)$') end
if read then
  late = redis.call('ZRANGE', KEYS[4], 0, tonumber(ARGV[8]) - 1)
  watermark = tonumber(watermark)
  if #late == tonumber(ARGV[8]) or (log == ARGV[6] and tonumber(read) < tonumber(ARGV[7])) then watermark = 0 end
  local due = watermark - tonumber(ARGV[4])
  for i = 1, (#KEYS - 4) / 2 do
    local id, offset, time = ARGV[3 * i + 6], ARGV[3 * i + 7], ARGV[3 * i + 8]
    if tonumber(time) >= due then break end
    local reactions = redis.call('HGETALL', KEYS[2 * i + 4])
    if (#reactions == 0 or lost == 0) and redis.call('ZREM', KEYS[3], id) == 1 and #reactions == 0 then
      lost = lost + 1
      since = since or string.format('lost:%.0f', tonumber(time) - tonumber(ARGV[4]))
    end
    if lost == 0 then
      local mark = redis.call('SET', KEYS[2 * i + 3], offset .. ':' .. time, 'NX', 'GET', 'PX', ARGV[5])
      if mark then
        earlier[#earlier + 1] = i
        earlier[#earlier + 1] = mark
      end
      if #reactions > 0 then
        reacted[#reacted + 1] = i
        reacted[#reacted + 1] = reactions
      end
      closed, last, newest = i, offset, time
    end
  end
end
if since then redis.call('SET', KEYS[2], since, 'PX', ARGV[3]) end
local marks = ARGV[1]
if last then
  marks = string.format('%.0f', tonumber(last) + 1) .. ':' .. newest .. ':' .. ARGV[2]
  redis.call('SET', KEYS[1], marks, 'PX', ARGV[3])
end
return {progress, closed, marks, late, lost, earlier, reacted}
"""
)

# KEYS: checkpoint of the marks, unmatched, late, then closed mark and reactions of each impression. ARGV: checkpoint
# expected, checkpoint next, its ttl, ttl of marks, then impression id, offset, time, how many reactions of each, then
# offset and value of what shall wait in `late`.
MARK_AGAIN = (
    IS_KNOWN
    + """
local n = (#KEYS - 3) / 2
for i = 1, n do
  if redis.call('HLEN', KEYS[2 * i + 3]) ~= tonumber(ARGV[4 * i + 4]) then return 'more' end
end
for i = 1, n do
  redis.call('SET', KEYS[2 * i + 2], ARGV[4 * i + 2] .. ':' .. ARGV[4 * i + 3], 'NX', 'PX', ARGV[4])
  redis.call('ZREM', KEYS[2], ARGV[4 * i + 1])
end
for i = 4 * n + 5, #ARGV, 2 do
  redis.call('ZADD', KEYS[3], ARGV[i], ARGV[i + 1])
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
end
"""
    + MOVE
    + "return 'stored'"
)

# KEYS: a key, and where it is put. ARGV: how long it is kept there, then which members of it; none: it goes whole.
PUT_ASIDE = """
local kind = redis.call('TYPE', KEYS[1]).ok
if #ARGV == 1 then
  redis.call('RENAME', KEYS[1], KEYS[2])
elseif redis.call('TYPE', KEYS[2]).ok ~= kind then
  redis.call('DEL', KEYS[2])
end
for i = 2, #ARGV do
  if kind == 'hash' then
    redis.call('HSET', KEYS[2], ARGV[i], redis.call('HGET', KEYS[1], ARGV[i]))
    redis.call('HDEL', KEYS[1], ARGV[i])
  else
    redis.call('ZADD', KEYS[2], 0, ARGV[i])
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
redis.call('PEXPIRE', KEYS[2], ARGV[1])
"""
