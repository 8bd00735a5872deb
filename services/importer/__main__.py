"""``python -m services.importer --config mesh.yaml``"""

import sys

from banditmesh.signals import exit_on_signals


def main() -> int:
    """Import, which takes a second or more, and serve; the exit code."""
    exit_on_signals(0)
    from banditmesh.runtime.launch import service_main
    from services.importer.bootstrap import bootstrap
    from services.importer.settings import ImporterSettings

    return service_main(
        "importer", ImporterSettings, bootstrap, description="Imports mapping files, profiles and contents."
    )


if __name__ == "__main__":
    sys.exit(main())
