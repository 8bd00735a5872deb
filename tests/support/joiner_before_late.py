"""What a joiner does to Redis that is from before late reactions waited there: its scripts, word by word, as it called
them. It sent late reactions itself, before it stored them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from banditmesh.runtime import keys
from banditmesh.runtime.redis import RedisClient
from services.joiner.checkpoint import IS_KNOWN, MOVE, TTL_MS, Checkpoint, Progress
from services.joiner.ledger import REACTIONS, Mark, StoredReaction

STORE = (
    IS_KNOWN
    + """
local n = (#KEYS - 2) / 2
for i = 1, n do
  if ARGV[5 * i + 4] == '0' and redis.call('EXISTS', KEYS[2 * i + 1]) == 1 then return 'closed' end
end
for i = 1, n do
  local mark, reactions, at = KEYS[2 * i + 1], KEYS[2 * i + 2], 5 * i
  local first = redis.call('HGET', reactions, ARGV[at + 1])
  if not first or tonumber(string.match(first, '^%d+')) > tonumber(string.match(ARGV[at + 2], '^%d+')) then
    redis.call('HSET', reactions, ARGV[at + 1], ARGV[at + 2])
    redis.call('PEXPIRE', reactions, ARGV[4])
  end
  if redis.call('EXISTS', mark) == 0 then redis.call('ZADD', KEYS[2], 'NX', ARGV[at + 3], ARGV[at]) end
end
if n > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
"""
    + MOVE
    + "return 'stored'"
)
CLOSE = (
    IS_KNOWN
    + """
local progress = redis.call('GET', KEYS[2])
local closed, last, newest = {}, nil, nil
if progress then
  local watermark = tonumber(string.match(progress, '^%d+:(%d+)'))
  for i = 1, (#KEYS - 3) / 2 do
    local id, offset, time = ARGV[3 * i + 3], ARGV[3 * i + 4], ARGV[3 * i + 5]
    if tonumber(time) + tonumber(ARGV[4]) >= watermark then break end
    local earlier = redis.call('SET', KEYS[2 * i + 2], offset .. ':' .. time, 'NX', 'GET', 'PX', ARGV[5])
    redis.call('ZREM', KEYS[3], id)
    closed[i] = {earlier, redis.call('HGETALL', KEYS[2 * i + 3])}
    last, newest = offset, time
  end
end
local marks = ARGV[1]
if last then
  marks = string.format('%.0f', tonumber(last) + 1) .. ':' .. newest .. ':' .. ARGV[2]
  redis.call('SET', KEYS[1], marks, 'PX', ARGV[3])
end
return {progress, closed, marks}
"""
)
LIFE_MS = 60_000


class OlderJoiner:
    """Of one partition."""

    def __init__(self, redis: RedisClient, partition: int) -> None:
        self._redis = redis
        self._partition = partition

    async def store(self, checkpoint: Checkpoint, following: Progress, reactions: Sequence[StoredReaction]) -> None:
        """Store reactions; late ones have been sent."""
        names = [checkpoint.key, keys.unmatched(self._partition), *self._keys(each.impression_id for each in reactions)]
        arguments = [*checkpoint.arguments(following), LIFE_MS]
        for each in reactions:
            arguments += [each.impression_id, each.key, each.pack(), each.time_ms, int(each.closed)]
        assert await self._redis.client.eval(STORE, len(names), *names, *arguments) == b"stored"

    async def close(self, marks: Checkpoint, impressions: Sequence[tuple[bytes, Mark]], window_ms: int) -> int:
        """Close impressions; how many are closed."""
        reactions = keys.join_progress(self._partition, REACTIONS)
        names = [marks.key, reactions, keys.unmatched(self._partition), *self._keys(each for each, _ in impressions)]
        arguments: list[bytes | int] = [marks.known, marks.log, TTL_MS, window_ms, LIFE_MS]
        for impression_id, mark in impressions:
            arguments += [impression_id, mark.offset, mark.time_ms]
        _, closed, _ = await self._redis.client.eval(CLOSE, len(names), *names, *arguments)
        return len(closed)

    def _keys(self, impression_ids: Iterable[bytes]) -> Iterator[str]:
        return chain.from_iterable(
            (keys.closed(self._partition, each), keys.reactions(self._partition, each)) for each in impression_ids
        )
