"""Every Redis key of the mesh, in one place.

Keys of one user share the hash tag ``{user}``, keys of one join partition share ``{p<n>}``, so that on a Redis Cluster
one command reads a user and one transaction covers a partition. Every key is written with a time to live.

A tag ends at the first ``}``; a user id may hold any character, so braces and the escape character itself are escaped.
"""

from __future__ import annotations

from collections.abc import Sequence

# Versions of a mapping (or of the profiles) are written to two slots in turn. The live one is named by a pointer, and
# each value starts with the version it belongs to, so what an older version left in a slot is recognised and ignored.
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
    if "%" in user_id or "{" in user_id or "}" in user_id:  # looking costs a third of what translating does
        user_id = user_id.translate(_ESCAPES)
    return "{" + user_id + "}"


def candidates(tag: str, source: str, slot: int) -> str:
    """Candidates that a source (``service/logic``) proposes for the user with this tag."""
    return f"c:{tag}{candidates_tail(source, slot)}"


def around_tag(candidate_tails: Sequence[str], profile_slot: int) -> list[tuple[str, str]]:
    """What stands before and after the tag in each key of a user that an engine reads: candidates, profile, state.

    Args:
        candidate_tails: Of each source, from :func:`candidates_tail`.
        profile_slot: The live slot of the profiles.
    """
    tag = user_tag("")
    theirs = [*[f"c:{tag}{tail}" for tail in candidate_tails], profile(tag, profile_slot), state(tag)]
    return [(before, after) for before, _, after in (key.partition(tag) for key in theirs)]


def of_user(tag: str, around: Sequence[tuple[str, str]]) -> list[str]:
    """All keys of a user that an engine reads, in one go because this is its hot path.

    Args:
        tag: The user's.
        around: From :func:`around_tag`.
    """
    return [before + tag + after for before, after in around]


def candidates_tail(source: str, slot: int) -> str:
    """What follows the tag in :func:`candidates`."""
    return f":{source}:{SLOTS[slot]}"


def profile(tag: str, slot: int) -> str:
    """Profile of the user with this tag."""
    return f"p:{tag}:{SLOTS[slot]}"


def state(tag: str) -> str:
    """What the joiner keeps of the user with this tag: clicks, mutes, counts."""
    return f"s:{tag}"


def live(source: str) -> str:
    """Pointer to the live version of a source (``service/logic``) or of ``profiles``; see
    :class:`packing.LiveVersion`."""
    return f"live:{source}"


def content(key: int) -> str:
    """One content, by its 64-bit key."""
    return f"k:{key:016x}"


def known_contents(service: str) -> str:
    """Set of the content ids of a service that are known, for scheduled refreshes."""
    return f"known:{service}"


def join_progress(partition: int, stream: str = "reactions") -> str:
    """Checkpoint of one of the joiner's streams through a partition: ``reactions``, ``marks`` (of closed impressions)
    or ``shown``."""
    return f"j:{{p{partition}}}:progress" + ("" if stream == "reactions" else f":{stream}")


def reactions(partition: int, impression_id: bytes) -> str:
    """Hash of the reactions to an impression: the first one of each kind (``click``, ``mute`` or ``target:<name>``)."""
    return f"j:{{p{partition}}}:r:{impression_id.hex()}"


def closed(partition: int, impression_id: bytes) -> str:
    """Mark of a closed impression: offset and broker time of its first copy."""
    return f"j:{{p{partition}}}:i:{impression_id.hex()}"


def unmatched(partition: int) -> str:
    """Sorted set of the impressions that have reactions but have not been seen yet, by the first reaction's broker
    time."""
    return f"j:{{p{partition}}}:unmatched"


def late(partition: int) -> str:
    """Sorted set of the late reactions that wait to be written to ``late-reactions``, by offset."""
    return f"j:{{p{partition}}}:late"


def job(job_id: str) -> str:
    """One import job; all keys of a job share its tag."""
    return f"job:{{{job_id}}}"


def job_rejects(job_id: str) -> str:
    """List of the rows that an import job has rejected, until they are in the rejects file."""
    return f"job:{{{job_id}}}:rejects"


def job_contents(job_id: str, outcome: str) -> str:
    """Set of the content keys that an import job found to be ``new`` or ``missing``: counted once, however often it is
    resumed."""
    return f"job:{{{job_id}}}:{outcome}"


def source_lease(source: str) -> str:
    """Lease of a source: the importer that imports into it. In the slot of :func:`live`, so that one script checks it
    and goes live."""
    return f"lease:{{{live(source)}}}"


def source_counter(source: str) -> str:
    """Counter of a source, in the slot of :func:`live`: numbers for leases and versions, none of which is ever used
    again."""
    return f"counter:{{{live(source)}}}"


def unannounced(service: str) -> str:
    """Set of the content keys whose change is being written and may not have been announced yet."""
    return f"unannounced:{service}"


def refreshed(service: str) -> str:
    """Mark that lives until a service's contents are due for a refresh again."""
    return f"refreshed:{service}"


def refresh_lease(service: str) -> str:
    """Lease of a service's scheduled refresh."""
    return f"refresh-lease:{service}"


def ranked(tag: str, placement: str) -> str:
    """What a user's candidates of a placement were scored, for a while."""
    return f"c:{tag}{ranked_tail(placement)}"


def ranked_tail(placement: str) -> str:
    """See :func:`candidates_tail`."""
    return f":ranked:{placement}"


JOBS = "jobs"
OPEN_JOBS = "jobs:open"


def health(number: int) -> str:
    """What a service writes to see that Redis takes writes; the number leads to one or another node of a Cluster."""
    return f"health:{{{number}}}"


_OF_PARTITION = {"r": "hash", "unmatched": "zset", "late": "zset"}
_OF_JOB = {"": "hash", "rejects": "list", "new": "set", "missing": "set"}
_OTHERS = {JOBS: "zset", OPEN_JOBS: "zset", CHANGES: "stream"}


def kind(key: str) -> str:
    """What Redis holds under a key of the mesh, as ``TYPE`` names it.

    Examples:
        >>> kind(state(user_tag("u1"))), kind(late(3)), kind(job_rejects("a"))
        ('string', 'zset', 'list')
    """
    first, _, rest = key.partition(":")
    if first == "j":
        return _OF_PARTITION.get(rest.partition("}:")[2].partition(":")[0], "string")
    if first == "job":
        return _OF_JOB[rest.partition("}")[2].removeprefix(":")]
    return "set" if first in ("known", "unannounced") else _OTHERS.get(key, "string")


def aside(key: str) -> str:
    """Where what cannot be used is put aside, in the slot of the key that it stood under."""
    return f"aside:{key}" if "{" in key else f"aside:{{{key}}}"
