"""Off-policy evaluation: what a policy would have earned, from decisions that another one made. One estimator a file.

An estimator takes rows in batches of any size, keeps sums alone, and two of them add up to the estimator of both
parts. No I/O; numpy only. One pass over the log is enough for all of it but the reward model: its predictions must
come from a model that has not learned from the row. Either it learns as the rows go by, after each was predicted, or a
first pass over the log fits models without a part of the rows each (cross-fitting), and a second one predicts the part.

`Evaluation` is the way in: all estimators side by side, their intervals, how much of the policy the log supports, and
warnings in words. `interval` says how the intervals are made, and why so.
"""
