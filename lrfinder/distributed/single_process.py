"""One process on its own: the same methods as `RankGroup`, without any communication."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

__all__ = ["ALONE", "SingleProcess"]


class SingleProcess:
    """A process that has nothing to agree on with others.

    Every method returns what this process gives. See `RankGroup` for what the methods mean.

    Attributes:
        rank: 0.
        world_size: 1.
        is_distributed: False.
        collective_steps: Has no effect here.

    Example:
        >>> SingleProcess().means([0.5, None])
        [0.5, None]
    """

    is_distributed = False

    def __init__(self) -> None:
        self.rank = 0
        self.world_size = 1
        self.collective_steps = False

    def check_same_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Do nothing."""

    def meet_before_forward(self, model: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG002 - see RankGroup
        """Return a context manager that does nothing."""
        return nullcontext()

    def any_ended(self, ended: bool) -> bool:  # noqa: FBT001 - a question with its own answer
        """Return `ended`."""
        return ended

    def before_backward(self) -> None:
        """Do nothing."""

    def after_backward(self) -> None:
        """Do nothing."""

    def any_skipped(self, skipped: bool) -> bool:  # noqa: FBT001 - a question with its own answer
        """Return `skipped`."""
        return skipped

    def after_validation_batch(self) -> None:
        """Do nothing."""

    def means(self, losses: list[float | None], *, last: bool = False) -> list[float | None]:  # noqa: ARG002
        """Return the losses."""
        return losses

    def mean(self, value: float) -> float:
        """Return the value."""
        return value

    def minimum(self, count: int) -> int:
        """Return the number."""
        return count

    def share(self, value: Any) -> Any:
        """Return the value."""
        return value


ALONE = SingleProcess()
