"""The benchmark's picture: the regret of each rule, one dot a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.benchmarks.quality import Row

__all__ = ["draw"]

LEFT_OUT = ("divergence", "onset")  # landmarks, not advice


def draw(rows: list[Row], path: Path) -> None:
    """Save a strip of dots for each row, the mean as a bar; the scale is linear up to 0.05 and logarithmic beyond."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if row.name not in LEFT_OUT][::-1]
    figure = Figure(figsize=(8, 0.36 * len(rows) + 1.0), layout="constrained")
    axes = figure.add_subplot()
    rng = np.random.default_rng(0)
    for place, row in enumerate(rows):
        ours = row.name.startswith(("auto", "refine"))
        means = np.array(list(row.means.values()))
        heights = place + rng.uniform(-0.25, 0.25, len(means))
        axes.scatter(means, heights, s=12, alpha=0.6, color="C0" if ours else "0.45", linewidths=0, clip_on=False)
        axes.plot([means.mean()] * 2, [place - 0.36, place + 0.36], color="C3", linewidth=2, solid_capstyle="butt")
    axes.set_xscale("symlog", linthresh=0.05, linscale=0.6)
    ticks = [0, 0.02, 0.05, 0.1, 0.25, 0.5, 1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(-0.003, 1)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("regret (one dot per task; red: mean)")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
