"""Fixtures for all tests."""

from hypothesis import settings

pytest_plugins = ["tests.support.servers"]

# No example has a deadline: on a busy machine each may take long, and says nothing about the code.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")
