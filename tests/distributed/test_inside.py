"""A rank fails inside of a collective, or is not there: it restores alone, its exit or the timeout frees the others."""

import pytest

from tests.distributed.conftest import NEEDS_FSDP


def check(first, second, place):
    assert second["raised"] == ["Fault", place]
    assert first["raised"][0] == "RankError"
    assert f"Rank 1: Fault: {place}" in first["raised"][1]
    assert first["changed"] == second["changed"] == []


@pytest.mark.parametrize("place", ["backward", "step"])
def test_ddp_is_released_by_the_timeout(reports, place):
    first, second = (report["inside_ddp"][place] for report in reports(2))
    check(first, second, place)


@NEEDS_FSDP
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_fsdp_is_released_by_the_timeout(reports, place):
    first, second = (report["inside_fsdp"][place] for report in reports(2))
    check(first, second, place)


def test_released_by_the_exit(reports):
    first, second = (report["exit_inside"] for report in reports(2))
    check(first, second, "backward")


def test_a_rank_that_does_not_call_find(reports):
    kind, message = reports(2)[0]["missing_rank"]
    assert kind == "RankError"
    assert "LRFinder.find() must be called on each of the 2 ranks" in message
