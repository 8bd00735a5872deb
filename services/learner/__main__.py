"""``python -m services.learner --config mesh.yaml``"""

import sys

from banditmesh.signals import exit_on_signals


def main() -> int:
    """Import, which takes a second or more, and serve; the exit code."""
    exit_on_signals(0)
    from banditmesh.runtime.launch import service_main
    from services.learner.bootstrap import bootstrap
    from services.learner.settings import LearnerSettings

    return service_main("learner", LearnerSettings, bootstrap, description="Learns from examples and publishes models.")


if __name__ == "__main__":
    sys.exit(main())
