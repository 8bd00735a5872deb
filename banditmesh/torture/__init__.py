"""``banditmesh torture``: everything dies, stalls, lies and fills up under traffic, and an oracle says what came of it.

The oracle (:mod:`banditmesh.torture.oracle`) reads the topics as anybody could and works out from the brokers' times
alone what each example must be. It shares no code with the joiner: what both got wrong in the same way, it would not
find.
"""
