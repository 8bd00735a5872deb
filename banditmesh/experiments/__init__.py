"""Experiments: what variants of a placement earn beside each other, by numbers that one may look at whenever one likes.

Sums alone are kept, of bounded size: the unit of the statistics is the person, so users are hashed into buckets and
variances are taken over buckets. No I/O; numpy only. `Tally` is the way in (examples go in, sums stay), `report` the
way out (rates, differences, confidence sequences, the check of the sample ratio).
"""
