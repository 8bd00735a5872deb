"""``python -m banditmesh.cli``: the same as ``banditmesh``."""

from banditmesh.cli import main

main()
