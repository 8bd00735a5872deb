"""Tests of the bandit library."""
