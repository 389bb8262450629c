"""What the ranks of a process group decide together."""

from lrfinder.distributed.group_of_ranks import DataEnded, RankGroup
from lrfinder.distributed.ranks import Ranks, rank_group
from lrfinder.distributed.single_process import ALONE, SingleProcess

__all__ = ["ALONE", "DataEnded", "RankGroup", "Ranks", "SingleProcess", "rank_group"]
