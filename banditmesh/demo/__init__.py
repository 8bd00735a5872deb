"""``banditmesh demo``: people of a real data set visit the mesh, and it learns what to show to whom.

Everything goes in by the front door: mapping files through ``NotifyMapping``, film data through a Data Provider,
visits through ``SelectContent`` and ``TrackEvents``. No service knows of this package.
"""
