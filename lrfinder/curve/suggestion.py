"""A suggested learning rate and the reason for it."""

import dataclasses

__all__ = ["Suggestion"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A learning rate and the reason for it.

    Args:
        lr: The learning rate.
        rule: The name of its rule.
        reason: One sentence without its full stop; the numbers in it multiply to the learning rate.
        index: The index of the nearest point of the curve.
        spread: The lowest and highest learning rate over repeated sweeps, None for a single one.
    """

    lr: float
    rule: str
    reason: str
    index: int
    spread: tuple[float, float] | None = None
