"""What the ranks of a process group decide together."""

from lrfinder.distributed.forward_hooks import before_forward
from lrfinder.distributed.ranks import DataEnded, Ranks, rank_group

__all__ = ["DataEnded", "Ranks", "before_forward", "rank_group"]
