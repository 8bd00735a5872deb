"""A network that hangs instead of refusing, both ways or one way only."""

from __future__ import annotations

from typing import Final

from banditmesh.torture.network import Mode
from banditmesh.torture.scene import Scene

_WORDS: Final = {
    "hang": "both ways",
    "hang requests": "what goes there does not arrive",
    "hang answers": "what comes back does not arrive",
}


async def hangs(scene: Scene) -> None:
    """The way to Kafka, Redis and the store hangs: both ways, requests only, answers only."""
    modes: tuple[Mode, ...] = ("hang", "hang requests", "hang answers")
    for name, link in scene.world.links.items():
        for mode in modes:
            scene.note(f"the way to {name} hangs: {_WORDS[mode]}")
            link.mode = mode
            try:
                await scene.sleep(3.0, 8.0)
            finally:
                link.mode = "pass"
            scene.note(f"the way to {name} is open")
            await scene.sleep(1.0)
