"""Settings of topics that somebody changes while the mesh runs."""

from __future__ import annotations

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from tests.support.eventually import eventually


async def set_most_bytes(kafka: str, max_message_bytes: int, *topics: str, unread: str) -> None:
    """Let topics take no larger messages from now on. The broker answers before it heeds it: topic ``unread``, of the
    same change, is asked until it does."""
    # This call sets everything else back to the broker's defaults.
    settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(max_message_bytes)}
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await admin.start()
    await producer.start()

    async def heeds() -> bool:
        try:
            await producer.send_and_wait(unread, bytes(max_message_bytes))
        except MessageSizeTooLargeError:
            return True
        return False

    try:
        resources = [ConfigResource(ConfigResourceType.TOPIC, each, settings) for each in (*topics, unread)]
        await admin.alter_configs(resources)
        await eventually(heeds)
    finally:
        await producer.stop()
        await admin.close()
