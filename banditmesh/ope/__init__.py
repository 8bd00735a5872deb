"""Off-policy evaluation: what a policy would have earned, from decisions that another one made. One estimator a file.

An estimator takes rows in batches of any size, keeps sums alone, and two of them add up to the estimator of both
parts. No I/O; numpy only.
"""
