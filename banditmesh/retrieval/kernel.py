"""The Gaussian kernel on user vectors, and random Fourier features by which it becomes a product of two vectors.

K(u, v) = exp(−‖u − v‖² / 2σ²) ≈ φ(u)·φ(v). By Bochner's theorem K is the mean of cos(ω·(u − v)) over ω ~ N(0, I / σ²)
(Rahimi & Recht 2007, "Random Features for Large-Scale Kernel Machines", eq. 1 and algorithm 1). φ has a cosine and a
sine for each ω, which varies less than one cosine with a random phase (Sutherland & Schneider 2015, §2), and the ω
are made orthogonal, which varies less again (Yu et al. 2016, "Orthogonal Random Features", eq. 4). So a sum of
kernels over many clicks is one vector: Σ_c w_c K(u, u_c) ≈ φ(u) · Σ_c w_c φ(u_c).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Kernel:
    """See the module.

    Attributes:
        dimensions: Of user vectors, d.
        features: Of φ, D: an even number.
        bandwidth: σ, a distance between vectors of length 1.
        seed: Of the frequencies.
    """

    dimensions: int
    features: int
    bandwidth: float
    seed: int = 1

    def phi(self, vectors: Floats) -> Floats:
        """``float32[n, D]`` of ``vectors`` (``float32[n, d]``): all cosines, then all sines."""
        angles = vectors @ _frequencies(self).T
        out = np.empty((len(vectors), self.features), np.float32)
        half = self.features // 2
        np.cos(angles, out=out[:, :half])
        np.sin(angles, out=out[:, half:])
        out *= np.float32(np.sqrt(1.0 / half))
        return out

    def exact(self, left: Floats, right: Floats) -> NDArray[np.float64]:
        """``float64[n, m]``: K of each pair of rows (``float32[n, d]``, ``float32[m, d]``), without features."""
        a, b = left.astype(np.float64), right.astype(np.float64)
        squared = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
        kernel: NDArray[np.float64] = np.exp(-np.maximum(squared, 0) / (2 * self.bandwidth**2))
        return kernel


@lru_cache(maxsize=16)
def _frequencies(kernel: Kernel) -> Floats:
    """``float32[D / 2, d]``: blocks of orthogonal directions, each with the length that a Gaussian's row would have."""
    rng = np.random.default_rng(kernel.seed)
    wanted, d = kernel.features // 2, kernel.dimensions
    blocks = []
    for _ in range(-(-wanted // d)):
        directions, _ = np.linalg.qr(rng.standard_normal((d, d)))
        lengths = np.linalg.norm(rng.standard_normal((d, d)), axis=1)
        blocks.append(lengths[:, None] * directions.T)
    frequencies: Floats = (np.concatenate(blocks)[:wanted] / kernel.bandwidth).astype(np.float32)
    frequencies.setflags(write=False)
    return frequencies
