"""``python -m services.tracker``."""

import sys

from banditmesh.runtime.launch import service_main
from services.tracker.bootstrap import bootstrap
from services.tracker.settings import TrackerSettings

if __name__ == "__main__":
    sys.exit(service_main("tracker", TrackerSettings, bootstrap, description="The Event Tracker of banditmesh."))
