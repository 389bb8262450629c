"""What can be seen of `Ranks` from one process; `tests/distributed` has the rest."""

import pytest
import torch.distributed as dist

from lrfinder.distributed import SingleProcess, group_of_ranks
from lrfinder.distributed.ranks import rank_group


def test_without_a_process_group_there_is_one_process():
    with rank_group() as ranks:
        assert isinstance(ranks, SingleProcess)


def test_alone_in_a_group_either(group_of_one):
    with rank_group() as ranks:
        assert isinstance(ranks, SingleProcess)
    assert dist.is_initialized()


def test_the_users_exception_passes_through():
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, rank_group():
        raise error
    assert caught.value is error


def test_importing_does_not_load_what_only_distributed_training_needs(modules_after):
    heavy = {"torch.distributed.fsdp", "torch.distributed.tensor", "torch.distributed.algorithms.ddp_comm_hooks"}
    loaded = modules_after("import lrfinder; lrfinder.LRFinder")
    assert "lrfinder.finder" in loaded
    assert not heavy & (loaded - modules_after("pass"))


def test_the_control_group_waits_as_long_as_the_default_group(group_of_one):
    assert group_of_ranks._timeout().total_seconds() == 17
