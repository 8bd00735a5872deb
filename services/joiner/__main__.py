"""``python -m services.joiner --config mesh.yaml``"""

import sys

from banditmesh.signals import exit_on_signals


def main() -> int:
    """Import, which takes a second or more, and serve; the exit code."""
    exit_on_signals(0)
    from banditmesh.runtime.launch import service_main
    from services.joiner.bootstrap import bootstrap
    from services.joiner.settings import JoinerSettings

    return service_main(
        "joiner", JoinerSettings, bootstrap, description="Joins impressions and reactions into examples."
    )


if __name__ == "__main__":
    sys.exit(main())
