"""Permissions of a Kafka user, as ``kafka-acls.sh --add`` gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

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
    for resource, name, operation in permissions:
        by_prefix = name.endswith("*") and name != "*"  # "*" alone is Kafka's own word for all names
        answer = await admin._send_request(
            CreateAclsRequest(
                RESOURCES[resource],
                "kafka-cluster" if resource == "cluster" else name.rstrip("*") or "*",
                PREFIXED if by_prefix else LITERAL,
                f"User:{user}",
                "*",
                OPERATIONS[operation],
                ALLOW,
            )
        )
        assert not answer.creation_responses[0][0], answer
    await admin.close()
