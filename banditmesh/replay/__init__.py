"""Replaying a decision log through policies that learn as they go."""
