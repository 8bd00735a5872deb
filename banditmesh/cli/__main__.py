"""``python -m banditmesh.cli``: the same as ``banditmesh``."""

from banditmesh.command import main

main()
