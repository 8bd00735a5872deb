"""Permissions of a Kafka user, as ``kafka-acls.sh --add`` gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional-id": 5}
OPERATIONS = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Describe": 8,
    "IdempotentWrite": 12,
    "DescribeConfigs": 10,
}
LITERAL, PREFIXED, ALLOW = 3, 4, 3


class Permission(NamedTuple):
    """``name`` ends with ``*`` for all names that begin so."""

    resource: str
    name: str
    operation: str


async def permit(bootstrap: str, user: str, permissions: Iterable[Permission]) -> None:
    """Give a user these permissions; ``bootstrap`` is where everything is permitted."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    for permission in permissions:
        answer = await admin._send_request(CreateAclsRequest(*_acl(user, permission)))
        assert not answer.creation_responses[0][0], answer
    await admin.close()


async def forbid(bootstrap: str, user: str, permission: Permission) -> None:
    """Take a permission away again."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    answer = await admin._send_request(DeleteAclsRequest(*_acl(user, permission)))
    assert answer.filter_responses[0][2], answer
    await admin.close()


def _acl(user: str, permission: Permission) -> tuple[int, str, int, str, str, int, int]:
    resource, name, operation = permission
    by_prefix = name.endswith("*") and name != "*"  # "*" alone is Kafka's own word for all names
    return (
        RESOURCES[resource],
        "kafka-cluster" if resource == "cluster" else name.rstrip("*") or "*",
        PREFIXED if by_prefix else LITERAL,
        f"User:{user}",
        "*",
        OPERATIONS[operation],
        ALLOW,
    )
