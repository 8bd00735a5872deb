"""Every way to go wrong: one entry in :data:`FAULTS` each."""

from __future__ import annotations

from typing import Final

from banditmesh.torture.faults import clocks, disks, kafka, kills, network, poison, redis, store, upgrade, zombies
from banditmesh.torture.scene import Fault

FAULTS: Final = (
    Fault("kills", 1, "plain", kills.random_kills),
    Fault("joiners-1-3-2", 1, "plain", kills.scale_joiners),
    Fault("zombie-joiner", 2, "plain", zombies.joiner),
    Fault("zombie-learner", 2, "plain", zombies.learner),
    Fault("redis-restarted", 4, "plain", redis.restarted),
    Fault("redis-emptied", 4, "plain", redis.emptied),
    Fault("redis-paused", 4, "plain", redis.paused),
    Fault("half-a-snapshot", 5, "plain", store.half_written),
    Fault("two-learners", 5, "plain", zombies.two_learners),
    Fault("poison", 7, "plain", poison.everywhere),
    Fault("clocks", 6, "plain", clocks.wrong_by_an_hour),
    Fault("engine-ahead", 6, "plain", clocks.engine_from_the_future, mixes=False),
    Fault("upgrade", 10, "plain", upgrade.rolling, mixes=False),
    Fault("kafka-restarted", 3, "plain", kafka.restarted),
    Fault("kafka-emptied", 3, "plain", kafka.emptied, mixes=False),
    Fault("store", 5, "linked", store.troubled),
    Fault("network", 8, "linked", network.hangs),
    Fault("kafka-one-of-three", 3, "replicated", kafka.one_of_three),
    Fault("redis-promoted", 4, "replicated", redis.promoted),
    Fault("redis-slots", 4, "cluster", redis.slot_moved),
    Fault("redis-master", 4, "cluster", redis.master_lost),
    Fault("disk-cache", 9, "small disks", disks.model_cache, mixes=False),
    Fault("disk-kafka", 9, "small disks", disks.kafka_log, mixes=False),
    Fault("disk-up", 9, "small disks", disks.up_folder, mixes=False),
)
"""In the order in which they are tried: those of one shape one after the other, what is lost for good last."""
BY_NAME: Final = {fault.name: fault for fault in FAULTS}
