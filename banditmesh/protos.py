"""Where the contracts lie, for teams that generate Java, Kotlin, Go, Swift or TypeScript out of them.

``python -m banditmesh.protos`` prints the folder: what ``protoc -I`` and ``buf generate`` take. docs/clients.md has
calls in other languages.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("contracts") / "protos"
"""Has ``banditmesh/<service>/v1/*.proto``."""

if __name__ == "__main__":
    print(FOLDER)
