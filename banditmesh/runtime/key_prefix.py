"""The mesh's prefix before every Redis key, so that several meshes can live in one Redis (and its ACL can tell them
apart).

It is put on when a command is packed for the wire, below everything that knows of keys: pipelines, scripts, streams and
Clusters need not care. A key that has no hash tag becomes one (``changes`` → ``prefix{changes}``), so that it stays in
the slot that a Cluster's client has worked out without the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from banditmesh.runtime.errors import Internal

if TYPE_CHECKING:
    from redis.typing import EncodableT


_NO_KEY = frozenset(
    b"ACL ASKING AUTH CLIENT CLUSTER COMMAND CONFIG DBSIZE DISCARD ECHO EXEC FLUSHALL FLUSHDB HELLO INFO LASTSAVE "
    b"LATENCY MULTI PING QUIT READONLY READWRITE RESET ROLE SCRIPT SELECT SENTINEL SLOWLOG TIME UNWATCH WAIT "
    b"WAITAOF".split()
)
_ALL_KEYS = frozenset(b"DEL EXISTS MGET PFCOUNT SDIFF SINTER SUNION TOUCH UNLINK WATCH".split())
_SECOND = frozenset(b"MEMORY OBJECT XGROUP XINFO".split())
"""Commands with a subcommand before the key."""
_SCRIPTS = frozenset(b"EVAL EVAL_RO EVALSHA EVALSHA_RO FCALL FCALL_RO".split())
_FIRST = frozenset(
    b"APPEND DECR DECRBY EXPIRE EXPIREAT EXPIRETIME GET GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HEXPIRE HGET HGETALL "
    b"HINCRBY HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPEXPIRE HPTTL HSCAN HSET HSETNX HSTRLEN HTTL HVALS INCR INCRBY "
    b"INCRBYFLOAT LINDEX LINSERT LLEN LPOP LPUSH LPUSHX LRANGE LREM LSET LTRIM PERSIST PEXPIRE PEXPIREAT PEXPIRETIME "
    b"PSETEX PTTL RPOP RPUSH RPUSHX SADD SCARD SET SETEX SETNX SETRANGE SISMEMBER SMEMBERS SMISMEMBER SPOP SRANDMEMBER "
    b"SREM SSCAN STRLEN TTL TYPE XACK XADD XDEL XLEN XPENDING XRANGE XREVRANGE XTRIM ZADD ZCARD ZCOUNT ZINCRBY ZMSCORE "
    b"ZPOPMAX ZPOPMIN ZRANGE ZRANGEBYSCORE ZRANK ZREM ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREVRANGE ZREVRANGEBYSCORE "
    b"ZREVRANK ZSCAN ZSCORE".split()
)


def prefixed(args: Sequence[EncodableT], prefix: bytes) -> list[EncodableT]:
    """The words of a command with the prefix before each key.

    Raises:
        Internal: It is a command of which it is not known here where its keys are. One of the mesh must never touch a
            key without the prefix, so it does not go out.
    """
    words: list[EncodableT] = [*_encoded(args[0]).upper().split(), *args[1:]]
    keys = _keys_of(words)
    if keys is None:
        raise Internal(
            f"where are the keys of the Redis command {words[0]!r}? Add it to banditmesh/runtime/key_prefix.py"
        )
    for at in keys:
        words[at] = prefixed_key(_encoded(words[at]), prefix)
    return words


def prefixed_key(key: bytes, prefix: bytes) -> bytes:
    """The key as it is in Redis, in the same slot as without the prefix."""
    opened = key.find(b"{")
    if opened >= 0 and key.find(b"}", opened) > opened + 1:
        return prefix + key
    if opened >= 0 or b"}" in key:
        raise Internal(f"the Redis key {key!r} has a brace that is no hash tag")
    return prefix + b"{" + key + b"}"


def _keys_of(words: Sequence[EncodableT]) -> Sequence[int] | None:
    """Where in a command its keys are."""
    command = words[0]
    if command in _FIRST:
        return (1,)
    if command in _ALL_KEYS:
        return range(1, len(words))
    if command in _SCRIPTS:
        return range(3, 3 + int(_encoded(words[2])))
    if command in _NO_KEY:
        return ()
    if command in _SECOND:
        return (2,)
    if command == b"XREAD":
        first = 1 + next(at for at, word in enumerate(words) if _encoded(word).upper() == b"STREAMS")
        return range(first, first + (len(words) - first) // 2)
    return None


def _encoded(word: EncodableT) -> bytes:
    if isinstance(word, str):
        return word.encode()
    return bytes(word) if isinstance(word, bytes | memoryview) else str(word).encode()
