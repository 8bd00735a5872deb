"""The Joiner: exactly one example out of each impression and what came of it."""
