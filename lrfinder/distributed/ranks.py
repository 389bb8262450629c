"""Who takes part in a find: one process, or all ranks of a process group."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch.distributed as dist

from lrfinder.distributed.group_of_ranks import RankGroup
from lrfinder.distributed.single_process import SingleProcess

__all__ = ["Ranks", "rank_group"]

Ranks: TypeAlias = RankGroup | SingleProcess


@contextmanager
def rank_group() -> Iterator[Ranks]:
    """Let all ranks of the default process group go through a block together, or fail together.

    Where a rank raises outside of a collective, all ranks learn of it at their next meeting: the rank raises its own
    exception, the others raise a `RankError` that names the rank and quotes it; the process group goes on working.
    Where a rank raises inside of a collective it meets no other rank any more: the others are released by its exit or
    by the group's timeout, and the group may be dead.

    Yields:
        The ranks; a `SingleProcess` without a process group, and in a process group of a single rank.

    Raises:
        RankError: Another rank failed.

    Example:
        >>> with rank_group() as ranks:
        ...     ranks.world_size
        1
    """  # noqa: DOC502 - raised at the meetings
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        yield SingleProcess()
        return
    ranks = RankGroup()
    failure = None
    try:
        yield ranks
    except BaseException as error:
        failure = ranks.part(error)
        if failure is error:
            raise
        raise failure from error
    finally:
        # Its traceback holds this frame: the cycle would keep the model and the process group alive.
        del failure
