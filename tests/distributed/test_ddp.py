"""DistributedDataParallel on two and on four ranks: one search, the same everywhere, and nothing left behind."""

import numpy as np
import pytest

from tests.distributed import scenarios
from tests.distributed.conftest import NEEDS_FSDP
from tests.distributed.scenarios import FAULTS

WORLDS = pytest.mark.parametrize("world_size", [2, 4])


@WORLDS
@pytest.mark.parametrize("scenario", ["clean_ddp", "common_fault_ddp"])
def test_training_goes_on_with_the_same_bits(reports, world_size, scenario):
    for report in reports(world_size):
        assert len(report[scenario]) >= 4
        assert all(report[scenario].values()), report[scenario]


def test_without_the_cure_four_ranks_would_differ(reports):
    assert not any(report["uncured"] for report in reports(4))


@WORLDS
def test_nothing_is_left_changed(reports, world_size):
    for report in reports(world_size):
        assert report["nothing_changed_ddp"]["changed"] == []


@WORLDS
def test_losses_are_means_over_ranks(reports, world_size):
    results = [report["result_ddp"] for report in reports(world_size)]
    wanted = np.mean([result["own"] for result in results], axis=0)
    assert len(set(map(tuple, (result["own"] for result in results)))) == world_size
    for result in results:
        np.testing.assert_allclose(result["losses"], wanted, rtol=1e-12)
        assert [point[2] for point in result["points"]] == result["losses"]


@WORLDS
def test_all_ranks_return_the_same_result(reports, world_size):
    results = [report["result_ddp"] for report in reports(world_size)]
    apart = {"own", "issued", "bar"}
    for result in results[1:]:
        assert {name: result[name] for name in result if name not in apart} == {
            name: results[0][name] for name in results[0] if name not in apart
        }
    assert results[0]["meta"] == {"world_size": world_size, "accumulation_steps": 1}
    assert results[0]["batch_size"] == 8


@WORLDS
def test_only_the_first_rank_shows_and_warns(reports, world_size):
    results = [report["result_ddp"] for report in reports(world_size)]
    assert [result["bar"] for result in results] == [True] + [False] * (world_size - 1)
    assert len(results[0]["warnings"]) > 0
    assert [result["issued"] for result in results] == [len(results[0]["warnings"])] + [0] * (world_size - 1)


@WORLDS
@pytest.mark.parametrize("place", FAULTS)
def test_a_rank_that_fails_outside_of_collectives(reports, world_size, place):
    found = [report["faults"][place] for report in reports(world_size)]
    for rank, each in enumerate(found):
        if rank == 1:
            assert each["raised"] == ["Fault", place]
        else:
            assert each["raised"][0] == "RankError"
            assert f"Rank 1: Fault: {place}" in each["raised"][1]
        assert each["changed"] == []
        assert each["points"] == 8  # of a second find: the group goes on working
        assert each["same training"]


def test_partial_results_are_the_same(reports):
    first, second = (report["partial"] for report in reports(2))
    assert first["losses"] == second["losses"]
    assert len(first["losses"]) == 2  # the third was on its way


def test_a_failed_find_keeps_neither_the_model_nor_the_optimizer_alive(reports):
    first, second = (report["released"] for report in reports(2))
    assert (first["raised"][0], second["raised"][0]) == ("RankError", "Fault")
    assert first["alive"] == second["alive"] == []


@pytest.mark.parametrize("scenario", ["refining_ddp", pytest.param("refining_fsdp", marks=NEEDS_FSDP)])
def test_refining_agrees_and_leaves_nothing(reports, scenario):
    first, second = (report[scenario] for report in reports(2))
    assert first == second
    assert first["rule"] == "refine"
    assert "short trainings of 36 steps" in first["reason"]
    assert first["changed"] == []
    assert first["same training"]


def test_the_data_of_one_rank_end(reports):
    for report in reports(2):
        assert report["decisions"]["one rank's data end"] == ["exhausted", 5, 5]


def test_the_loss_of_one_rank_is_nan(reports):
    for report in reports(2):
        reason, points, stop_lr = report["decisions"]["one rank's loss is NaN"]
        assert (reason, points) == ("nonfinite", 4)
        assert stop_lr == pytest.approx(1e-4 * (0.1 / 1e-4) ** (4 / 7))
        assert report["decisions"]["bits"]


def test_the_sampler_s_epochs_are_honoured_and_put_back(reports):
    for report in reports(2):
        assert report["epochs"]["seen"] == report["epochs"]["wanted"]
        assert report["epochs"]["epoch"] == 4
        assert report["epochs"]["epoch points"] is None


def test_epochs_of_different_lengths_lead_to_the_same_short_trainings(reports):
    first, second = (report["uneven_epochs"] for report in reports(2))
    assert first == second
    for case, found in first.items():
        assert found["epoch points"] is None, case
        assert len(found["probes"]) > 1, case


def test_validation_is_a_mean_over_ranks(reports):
    found = [report["validation"] for report in reports(2)]
    wanted = np.mean([np.reshape(each["own"], (6, 3)).mean(1) for each in found], axis=0)
    for each in found:
        np.testing.assert_allclose(each["losses"], wanted, rtol=1e-6)
        assert each["changed"] == []
    assert found[1]["fault"] == ["Fault", "not this one"]
    assert found[0]["fault"][0] == "RankError"


def test_skips_of_the_scaler_are_the_same(reports):
    for report in reports(2):
        # Two retries at the first rate, then a gap at the fourth.
        assert report["scaler_ddp"] == {"changed": [], "indices": [0, 1, 2, *range(4, 10)], "steps": 12, "scale": 8.0}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("not allowed", "num_iter must be at least 5"),
        ("empty", "loader must give at least one batch"),
        ("no gradient", "must depend on trainable parameters"),
    ],
)
def test_an_argument_that_one_rank_refuses(reports, case, message):
    first, second = (report["arguments"][case] for report in reports(2))
    assert second[0] == "ArgumentError"
    assert message in second[1]
    assert first[0] == "RankError"
    assert f"Rank 1: ArgumentError: {second[1]}" in first[1]


def test_arguments_that_differ(reports):
    for report in reports(2):
        assert report["arguments"]["not the same"] == [
            "ArgumentError",
            "LRFinder.find() needs the same num_iter on every rank, got 10 on rank 0 and 11 on rank 1.",
        ]
        assert report["arguments"]["works again"] == 8


def test_two_ranks_suggest_what_one_process_does_with_twice_the_batch(reports):
    alone = scenarios.suggestion()
    grid_step = np.diff(np.log(alone["lrs"])).mean()
    for report in reports(2):
        assert abs(np.log(report["suggestion"]["suggestion"] / alone["suggestion"])) <= 2 * grid_step
        assert report["suggestion"]["stop_reason"] == alone["stop_reason"]


def test_an_interrupt_at_one_rank(reports):
    first, second = (report["interrupted"] for report in reports(2))
    assert second["raised"] == ["KeyboardInterrupt", ""]
    assert first["raised"][0] == "RankError"
    assert "Rank 1: KeyboardInterrupt" in first["raised"][1]
    assert first["changed"] == second["changed"] == []
    assert first["works again"] == second["works again"] == 8


def test_losses_that_are_read_late(reports):
    for report in reports(2):
        found = report["lagging"]
        assert found["losses"] == report["result_ddp"]["losses"]
        assert found["points"] == len(found["losses"])
        assert found["decisions"]["one rank's data end"][:2] == ["exhausted", 5]
        assert found["decisions"]["one rank's loss is NaN"] == report["decisions"]["one rank's loss is NaN"]
        assert found["decisions"]["bits"]
        assert found["changed"] == []
    assert [report["lagging"]["raised"][0] for report in reports(2)] == ["RankError", "Fault"]


def test_a_process_group_can_be_destroyed_straight_after_a_find(reports):
    for report in reports(2):
        assert report["destroyed"] == [5] * 8


def test_after_a_fault_in_a_backward_pass_the_buckets_are_new_and_equal(reports):
    """An all-reduce that is still under way writes to the old ones."""
    for report in reports(2):
        assert report["fresh_buckets"]["fresh"]
        assert report["fresh_buckets"]["before"] == report["fresh_buckets"]["after"]


def test_an_optimizer_with_a_closure(reports):
    first, second = (report["closures"] for report in reports(2))
    assert first["losses"] == second["losses"]
    assert len(first["losses"]) == 6
    assert first["changed"] == second["changed"] == []


def test_error_when_ranks_go_different_ways(reports):
    for report in reports(2):
        kind, message = report["different_ways"]
        assert kind == "LRFinderError"
        assert "rank 0: BACKWARD, rank 1: FORWARD" in message


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=NEEDS_FSDP)])
def test_several_finds_are_the_same_on_all_ranks_and_leave_nothing_changed(reports, kind):
    first, second = (report[f"several_{kind}"] for report in reports(2))
    assert first == second
    assert (first["changed"], first["same training"]) == ([], True)
    assert {"weight_decay=0.0", "weight_decay=0.1", "all groups", "body", "head"} <= set(first)
    assert first["weight_decay=0.0"] != first["weight_decay=0.1"]
    assert first["body"] != first["head"]
