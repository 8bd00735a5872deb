"""``python -m services.importer --config mesh.yaml``."""

import sys

from banditmesh.runtime.launch import service_main
from services.importer.bootstrap import bootstrap
from services.importer.settings import ImporterSettings

if __name__ == "__main__":
    sys.exit(
        service_main(
            "importer", ImporterSettings, bootstrap, description="Imports mapping files, profiles and contents."
        )
    )
