"""Training curves as a textbook draws them, with noise: what their learning rate was is plain to see.

Recorded trainings are never so clean. The networks of `lrfinder.diagnose` see some of these as well, so that they say
the obvious about them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["FINE", "TOO_HIGH", "TOO_LOW", "draw_curves"]

FINE, TOO_LOW, TOO_HIGH = range(3)
Floats = npt.NDArray[np.float64]


def draw_curves(count: int, seed: int = 0) -> Iterator[tuple[Floats, Floats | None, Floats, int]]:
    """Losses, learning rates, validation losses and the class of each of `count` curves."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        points = int(np.exp(rng.uniform(np.log(24), np.log(600))))
        place = (np.arange(points) + 0.5) / points
        lrs = _schedule(place, rng)
        spent = np.cumsum(lrs) / lrs.sum()
        kind = int(rng.integers(3))
        losses = _losses(kind, place, spent, rng)
        noise = float(rng.choice([1e-4, 0.003, 0.01, 0.03]))
        val_losses = np.interp((np.arange(16) + 1) / 16, place, losses) + 0.3 * noise * rng.normal(size=16)
        yield losses + noise * rng.normal(size=points), lrs if rng.random() < 0.7 else None, val_losses, kind


def _schedule(place: Floats, rng: np.random.Generator) -> Floats:
    shapes = (
        np.ones_like(place),
        1.02 - place,
        np.where(place < 0.3, 0.04 + 3.2 * place, 0.505 + 0.5 * np.cos(np.pi * (place - 0.3) / 0.7)),
        np.where(place < 0.1, 1.0, 0.01),
    )
    return shapes[int(rng.choice(4, p=[0.4, 0.2, 0.2, 0.2]))]


def _losses(kind: int, place: Floats, spent: Floats, rng: np.random.Generator) -> Floats:
    """From 1 down to 0: in proportion to the summed learning rate, or settling early, or with a hump."""
    if kind == TOO_LOW:
        depth = float(rng.uniform(0.0, 0.5))
        return 1 - spent * (1 - depth * spent) / (1 - depth)
    settled = np.exp(-place / float(rng.uniform(0.01, 0.1)))
    if kind == FINE:
        return settled
    height, width = float(np.exp(rng.uniform(np.log(0.6), np.log(3)))), float(rng.uniform(0.05, 0.2))
    return settled + height * np.exp(-(((place - rng.uniform(0.25, 0.7)) / width) ** 2))
