"""How well the bandit library learns, and how fast, beside its peers in the same run: ``make bench-learning``."""
