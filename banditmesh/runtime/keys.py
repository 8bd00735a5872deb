"""Every Redis key of the mesh, in one place.

Keys of one user share the hash tag ``{user}``, keys of one join partition share ``{p<n>}``, so that on a Redis Cluster one
command reads a user and one transaction covers a partition. Every key is written with a time to live.

A tag ends at the first ``}``; a user id may hold any character, so braces and the escape character itself are escaped.
"""

from __future__ import annotations

# Versions of a mapping (or of the profiles) are written to two slots in turn. The live one is named by a pointer, and each value
# starts with the version it belongs to, so what an older version left in a slot is recognised and ignored.
SLOTS = ("A", "B")

PROFILES = "profiles"

# Changes that engines follow: contents that are new, changed or gone, and versions that went live.
CHANGES = "changes"

_ESCAPES = str.maketrans({"{": "%7B", "}": "%7D", "%": "%25"})


def user_tag(user_id: str) -> str:
    """Return the hash tag of a user, with braces.

    Examples:
        >>> user_tag("u1")
        '{u1}'
        >>> user_tag("a}b")
        '{a%7Db}'
    """
    return "{" + user_id.translate(_ESCAPES) + "}"


def candidates(tag: str, source: str, slot: int) -> str:
    """Candidates that a source (``service/logic``) proposes for the user with this tag."""
    return f"c:{tag}:{source}:{SLOTS[slot]}"


def profile(tag: str, slot: int) -> str:
    """Profile of the user with this tag."""
    return f"p:{tag}:{SLOTS[slot]}"


def state(tag: str) -> str:
    """What the joiner keeps of the user with this tag: clicks, mutes, counts."""
    return f"s:{tag}"


def live(source: str) -> str:
    """Pointer to the live version of a source (``service/logic``) or of ``profiles``; see :class:`packing.LiveVersion`."""
    return f"live:{source}"


def content(key: int) -> str:
    """One content, by its 64-bit key."""
    return f"k:{key:016x}"


def known_contents(service: str) -> str:
    """Set of the content ids of a service that are known, for scheduled refreshes."""
    return f"known:{service}"


def join_progress(partition: int) -> str:
    """Offset and watermark of a reactions partition."""
    return f"j:{{p{partition}}}:progress"


def reaction(partition: int, impression_id: bytes, kind: str) -> str:
    """The first reaction of a kind to an impression. ``kind``: ``click``, ``mute`` or ``target:<name>``."""
    return f"j:{{p{partition}}}:r:{impression_id.hex()}:{kind}"


def closed(partition: int, impression_id: bytes) -> str:
    """Mark of a closed impression: offset and broker time of its first copy."""
    return f"j:{{p{partition}}}:i:{impression_id.hex()}"


def unmatched(partition: int) -> str:
    """Sorted set of the reactions whose impression has not been seen yet, by broker time."""
    return f"j:{{p{partition}}}:unmatched"


def job(job_id: str) -> str:
    """One import job; all keys of a job share its tag."""
    return f"job:{{{job_id}}}"


def job_lease(job_id: str) -> str:
    """Lease of an import job: the importer that works on it."""
    return f"job:{{{job_id}}}:lease"


JOBS = "jobs"
