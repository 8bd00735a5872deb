"""``python -m services.crs_engine --config mesh.yaml``"""

import sys

from banditmesh.signals import exit_on_signals


def main() -> int:
    """Import, which takes a second or more, and serve; the exit code."""
    exit_on_signals(0)
    from banditmesh.runtime.launch import service_main
    from services.crs_engine.bootstrap import bootstrap
    from services.crs_engine.settings import EngineSettings

    return service_main(
        "crs-engine", EngineSettings, bootstrap, description="Picks one content out of the candidates of all services."
    )


if __name__ == "__main__":
    sys.exit(main())
