"""``python -m services.learner``."""

import sys

from banditmesh.runtime.launch import service_main
from services.learner.bootstrap import bootstrap
from services.learner.settings import LearnerSettings

sys.exit(service_main("learner", LearnerSettings, bootstrap, description="Learns from examples and publishes models."))
