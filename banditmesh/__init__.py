"""banditmesh: one slot, many services; the content worth showing now is picked by a contextual bandit."""

__version__ = "0.1.0"
