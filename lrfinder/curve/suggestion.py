"""A suggested learning rate with the reason for it."""

import dataclasses

__all__ = ["Suggestion"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A learning rate and why.

    Args:
        lr: The learning rate.
        rule: The rule that gave it.
        reason: What was seen and why this rate, one sentence.
        index: The nearest point of the curve.
        spread: The lowest and highest value over repeated sweeps, None for a single one.
    """

    lr: float
    rule: str
    reason: str
    index: int
    spread: tuple[float, float] | None = None
