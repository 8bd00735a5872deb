"""Fitting a policy off-line to a decision log, and measuring it on another."""
