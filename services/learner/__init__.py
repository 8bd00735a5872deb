"""The Learner: turns examples into models, and publishes them."""

from banditmesh.runtime.memory import arrow_as_glibc

arrow_as_glibc()
