"""``python -m services.joiner --config mesh.yaml``."""

import sys

from banditmesh.runtime.launch import service_main
from services.joiner.bootstrap import bootstrap
from services.joiner.settings import JoinerSettings

if __name__ == "__main__":
    sys.exit(
        service_main("joiner", JoinerSettings, bootstrap, description="Joins impressions and reactions into examples.")
    )
