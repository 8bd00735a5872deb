"""``python -m services.crs_engine --config mesh.yaml``"""

import sys

from banditmesh.runtime.launch import service_main
from services.crs_engine.bootstrap import bootstrap
from services.crs_engine.settings import EngineSettings

if __name__ == "__main__":
    sys.exit(
        service_main(
            "crs-engine",
            EngineSettings,
            bootstrap,
            description="Picks one content out of the candidates of all services.",
        )
    )
