"""``python -m services.tracker --config mesh.yaml``"""

import sys

from banditmesh.signals import exit_on_signals


def main() -> int:
    """Import, which takes a second or more, and serve; the exit code."""
    exit_on_signals(0)
    from banditmesh.runtime.launch import service_main
    from services.tracker.bootstrap import bootstrap
    from services.tracker.settings import TrackerSettings

    return service_main("tracker", TrackerSettings, bootstrap, description="The Event Tracker of banditmesh.")


if __name__ == "__main__":
    sys.exit(main())
