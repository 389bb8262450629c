"""How often `lrfinder.diagnose` is right: its verdicts on trainings whose best learning rate is known.

    python -m tests.benchmarks.diagnosis --report

prints the tables from `histories.npz`: of the tasks that were held out, and of those that the networks learnt from.
The regret of a training is the share of the reachable improvement of the validation loss that it forgoes, against the
best learning rate under the same schedule; where the learning rate drops early, against OneCycle's best.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lrfinder.curve import Diagnosis, TrainingVerdict, diagnose
from tests.benchmarks.histories import (
    DROPS,
    FIRST,
    HELD_OUT,
    RAW_TARGETS,
    SECOND,
    SHORT,
    STANDARD,
    History,
    load_histories,
)

__all__ = ["Case", "load_cases", "score", "table"]

BAD, GOOD, HURT = 0.2, 0.03, 0.1  # regrets
LOW, HIGH = TrainingVerdict.TOO_LOW, TrainingVerdict.TOO_HIGH
EARLY = TrainingVerdict.DECAYED_TOO_EARLY
ALARMS = (LOW, HIGH, EARLY)
MAIN = ("right", "wrong", "alarms", "drops told")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recorded training with the truth about it.

    Args:
        history: The recording.
        regret: What it lost against the best learning rate, between 0 and 1.
        side: -1 below the best learning rate, 1 above.
        hurt_by_drop: Whether the early drop cost more than 0.1, and the same peak under OneCycle at least 0.05 less.
    """

    history: History
    regret: float
    side: int
    hurt_by_drop: bool

    @property
    def dropped(self) -> bool:
        """Whether the learning rate drops early."""
        return self.history.schedule in DROPS


def load_cases(histories: list[History] | None = None) -> list[Case]:
    """Every recorded training with its regret; without an argument those of `histories.npz`."""
    histories = load_histories() if histories is None else histories
    by_task = {(h.task, h.schedule, h.factor): h for h in histories}
    best = {
        key: min(group, key=lambda h: h.final)
        for key, group in _grouped(histories, lambda h: (h.task, h.schedule)).items()
    }

    def regret(history: History, against: History) -> float:
        reachable = max(history.start - against.final, 1e-12)
        return float(np.clip((history.final - against.final) / reachable, 0, 1))

    cases = []
    for history in histories:
        dropped = history.schedule in DROPS
        rival = best[history.task, "one_cycle" if dropped else history.schedule]
        lost = regret(history, rival)
        twin = regret(by_task[history.task, "one_cycle", history.factor], rival) if dropped else 1.0
        side = int(np.sign(round(np.log(history.factor / rival.factor), 6)))
        cases.append(Case(history=history, regret=lost, side=side, hurt_by_drop=lost > HURT and twin < lost - 0.05))
    return cases


def _grouped(histories: Iterable[History], key: Callable[[History], tuple[str, str]]) -> dict:
    ordered = sorted(histories, key=key)
    return {name: list(group) for name, group in itertools.groupby(ordered, key)}


def given(history: History, points: int | None = None, *, lrs: bool = True) -> tuple[Any, Any]:
    """Losses and learning rates as a user has them: averaged over fewer points, or without learning rates."""
    losses, rates = history.losses, history.lrs
    if points is not None and points < len(losses):
        edges = np.linspace(0, len(losses), points + 1).round().astype(int)
        losses, rates = (np.add.reduceat(each, edges[:-1]) / np.diff(edges) for each in (losses, rates))
    return losses, rates if lrs else None


def diagnosis_of(history: History, points: int | None = None, *, lrs: bool = True, val: bool = False) -> Diagnosis:
    """The diagnosis of what is given, with validation losses or without."""
    losses, rates = given(history, points, lrs=lrs)
    return diagnose(losses, rates, val_losses=history.val_losses if val else None)


def score(cases: list[Case], verdicts: list[TrainingVerdict]) -> dict[str, tuple[float, int]]:
    """Shares and counts: bad trainings told right and wrong, good ones with an alarm, drops that hurt and were told."""
    pairs = list(zip(cases, verdicts, strict=True))
    bad = [(c, v) for c, v in pairs if not c.dropped and c.regret > BAD and c.side]
    right = {-1: (LOW, EARLY), 1: (HIGH,)}
    good = [v for c, v in pairs if c.regret < GOOD]
    kept = [v for c, v in pairs if c.regret < GOOD and not c.dropped]
    hurt, all_hurt = [v for c, v in pairs if c.hurt_by_drop], [v for c, v in pairs if c.dropped and c.regret > HURT]
    return {
        "right": _share(v in right[c.side] for c, v in bad),
        "right, too low": _share(v in right[-1] for c, v in bad if c.side < 0),
        "right, too high": _share(v in right[1] for c, v in bad if c.side > 0),
        "wrong": _share(v in right[-c.side] for c, v in bad),
        "alarms": _share(v in ALARMS for v in good),
        "alarms, no early drop": _share(v in ALARMS for v in kept),
        "drops told": _share(v in {LOW, EARLY} for v in hurt),
        "drops told, of all with regret > 0.1": _share(v in {LOW, EARLY} for v in all_hurt),
    }


def _share(flags: Iterable[bool]) -> tuple[float, int]:
    values = list(flags)
    return (float(np.mean(values)) if values else float("nan")), len(values)


def table(cases: list[Case]) -> str:
    """The scores of a set of cases under several forms of the input."""
    forms = {
        "200 points": {},
        "30 points": {"points": 30},
        "with validation": {"val": True},
        "without lrs": {"lrs": False},
    }
    rows = {name: score(cases, [diagnosis_of(c.history, **how).verdict for c in cases]) for name, how in forms.items()}
    names = list(next(iter(rows.values())))
    lines = [f"{'':38s}" + "".join(f"{form:>18s}" for form in rows)]
    for name in names:
        cells = "".join(f"{rows[form][name][0]:>11.0%} of {rows[form][name][1]:<4d}" for form in rows)
        lines.append(f"{name:38s}{cells}")
    return "\n".join(lines)


def by_kind(cases: list[Case]) -> str:
    """The scores of the tasks of each kind, with all 200 losses."""
    kinds = {"standard": STANDARD, "small networks": SHORT, "targets as they are": RAW_TARGETS}
    lines = []
    for kind, tasks in kinds.items():
        chosen = [case for case in cases if case.history.task in tasks]
        found = score(chosen, [diagnosis_of(case.history).verdict for case in chosen])
        cells = (f"{name} {found[name][0]:.0%} of {found[name][1]}" for name in MAIN)
        lines.append(f"{kind}, {len({case.history.task for case in chosen})} tasks: {', '.join(cells)}")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="print the tables")
    parser.parse_args()
    cases = load_cases()
    for title, tasks in (("held out", HELD_OUT), ("learnt from", (*FIRST, *SECOND))):
        chosen = [case for case in cases if case.history.task in tasks]
        print(f"{title}: {len(tasks)} tasks, {len(chosen)} trainings\n\n{table(chosen)}\n\n{by_kind(chosen)}\n")


if __name__ == "__main__":
    main()
