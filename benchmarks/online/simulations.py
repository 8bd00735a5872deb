"""Simulated traffic with known means: drift, a shift, cold arms, rare clicks, many arms, few users, news, a shop.

A user has a taste and a segment that the policy sees, a content a topic vector and a category that it sees. The chance
of a click is logistic in how they fit, in the content's own quality, and in a bias that makes clicks as rare as wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Row = dict[str, object]


@dataclass(frozen=True)
class Simulation:
    """What the traffic is like.

    Attributes:
        decisions: how many.
        alive: contents that can be shown at a time.
        offered: candidates of a decision.
        born: new contents in 1 000 decisions; as many die, the oldest first.
        users: how many there are.
        bias: of the logit; -4.6 is a click rate of about 1 %.
        taste: standard deviation of how well users and categories fit, in logits.
        quality: standard deviation of a content's own quality, in logits.
        drift: standard deviation of a content's quality after 1 000 decisions, in logits.
        shift: the decision at which users change what they like; 0 is never. The page's logs end after 1 500.
        described: whether contents have features.
        price: standard deviation of the log of what a click on a content earns; 0: each earns 1.
    """

    decisions: int = 5_000
    alive: int = 50
    offered: int = 10
    born: int = 0
    users: int = 1_000
    bias: float = -1.5
    taste: float = 1.0
    quality: float = 0.7
    drift: float = 0.0
    shift: int = 0
    described: bool = True
    price: float = 0.0

    def rows(self, seed: int) -> Iterator[Row]:
        """Rows of full information; `mean` of a candidate, which policies do not see, is what it earns on average."""
        rng = np.random.default_rng([seed, 77])
        segments, categories = 6, 8
        fit = rng.normal(0, self.taste, (2, segments, categories))
        fit[1] = np.roll(fit[0], 1, axis=0)  # so that nothing is harder after a shift
        segment = rng.integers(segments, size=self.users)
        own = rng.normal(0, 0.4 * self.taste, (self.users, categories))
        category = rng.integers(categories, size=self.alive)
        quality = rng.normal(0, self.quality, self.alive)
        prices = np.exp(np.random.default_rng([seed, 78]).normal(0, self.price, self.alive))
        names = np.arange(self.alive)
        last = self.alive
        births = 0.0
        popularity = rng.pareto(1.5, self.users) + 0.1
        popularity /= popularity.sum()
        for step in range(self.decisions):
            births += self.born / 1000
            while births >= 1:
                births -= 1
                place = last % self.alive
                names[place], category[place], last = last, rng.integers(categories), last + 1
                quality[place] = rng.normal(0, self.quality)
            if self.drift and step % 100 == 0:
                quality *= 1 - self.drift**2 / self.quality**2 / 20
                quality += rng.normal(0, self.drift * 0.1**0.5, self.alive)
            user = int(rng.choice(self.users, p=popularity))
            offered = rng.choice(self.alive, min(self.offered, self.alive), replace=False)
            like = fit[int(0 < self.shift <= step)][segment[user]] + own[user]
            hour = int(rng.integers(24))
            means = 1 / (1 + np.exp(-(self.bias + like[category[offered]] + quality[offered])))
            clicks = rng.random(len(offered)) < means
            yield {
                "t": 1.7e9 + 20.0 * step,
                "user": f"u{user}",
                "context": {"segment": f"s{segment[user]}", "hour": f"h{hour}"},
                "candidates": [
                    {
                        "id": f"c{names[at]}",
                        **({"features": {"category": f"k{category[at]}"}} if self.described else {}),
                        "reward": float(click * price),
                        "mean": float(mean * price),
                    }
                    for at, click, mean, price in zip(offered.tolist(), clicks, means, prices[offered], strict=True)
                ],
            }


SIMULATIONS = {
    "drift": Simulation(drift=1.0, alive=100),
    "shift": Simulation(shift=750, described=False),
    "cold arms": Simulation(born=50, alive=200),
    "many arms": Simulation(alive=2_000, offered=20, born=50, drift=0.3, shift=3_000, decisions=6_000, users=5_000),
    "rare clicks": Simulation(bias=-4.8, decisions=12_000, alive=30),
    "very rare clicks": Simulation(bias=-7.2, decisions=20_000, alive=20, described=False),
    "news": Simulation(bias=-2.6, alive=300, offered=30, born=200, users=2_000, taste=0.7, quality=0.6),
    "shop": Simulation(bias=-3.0, alive=500, offered=12, born=5, users=3_000, price=0.7),
    "few users": Simulation(users=12, described=False, alive=30, taste=1.5),
}
