"""The Importer: mapping files, profiles and content master data on their way into Redis."""

from banditmesh.runtime.memory import arrow_as_glibc

arrow_as_glibc()
