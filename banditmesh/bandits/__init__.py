"""Contextual bandits on flat numpy arrays: policies, explorations and propensities, features, rewards. No I/O."""
