"""Whose a CancelledError is.

A client library that cancels a task of its own and then awaits it raises CancelledError into whoever called it
(aiokafka 0.14 does when a producer is stopped during an outage). To the caller's task that looks like its own end: it
would be over, silently, with nobody having asked for it.
"""

from __future__ import annotations

import asyncio


def is_cancelled() -> bool:
    """Whether somebody has cancelled the task that runs now; False: the CancelledError at hand is somebody else's."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
