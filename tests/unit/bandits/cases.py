"""What the laws are applied to: every registered policy, with its defaults and with the variants below."""

from __future__ import annotations

from functools import partial
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from banditmesh.bandits.registry import POLICIES, build

VARIANTS: Final[dict[str, list[dict[str, object]]]] = {
    "beta_bernoulli": [{"arm": "logic", "prior_failures": 20.0}, {"half_life": "20s"}],
    "blend": [{"popular": {"by": ["country", "hour", "weekday"], "half_life": "1d"}, "k": 2.0}],
    "fm": [{"arm": "logic", "link": "logit", "batch": 8, "factors": 3}, {"half_life": "20s"}],
    "linear": [{"arm": "logic", "link": "logit", "batch": 8}, {"half_life": "20s", "bits": 8}],
    "linucb": [{"arm": "logic", "dimension": 4}, {"half_life": "20s", "prior_reward": 0.0}],
    "linucb_hybrid": [{"arm": "logic", "dimension": 4, "shared_dimension": 6}, {"half_life": "20s"}],
    "nfm": [{"arm": "logic", "link": "logit", "hidden": [8, 4], "dropout": 0.3, "learning_rate": 0.2}],
    "popularity": [{"half_life": None}, {"half_life": "20s"}],
    "stacked": [{"arm": "logic", "link": "logit", "dimension": 4, "max_arms": 3, "bits": 8}, {"half_life": "20s"}],
}

_CASES = [(name, params) for name in POLICIES for params in [{}, *VARIANTS.get(name, [])]]

every_policy = pytest.mark.parametrize("make", [partial(build, *case) for case in _CASES], ids=[str(c) for c in _CASES])
shapes = settings(max_examples=10, deadline=None)
"""For laws whose batches are drawn in number and size too."""
seeds = settings(max_examples=4, deadline=None)
"""For laws of which a seed alone is drawn: one seed is as good as another, and each run has others."""
n_examples = st.sampled_from([0, 1, 5, 40])
