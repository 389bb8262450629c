"""FSDP2 on two and on four ranks: shards are captured and put back as shards."""

import numpy as np
import pytest
import torch

from tests.distributed.conftest import NEEDS_FSDP

pytestmark = NEEDS_FSDP
WORLDS = pytest.mark.parametrize("world_size", [2, 4])


@WORLDS
@pytest.mark.parametrize("scenario", ["clean_fsdp", "common_fault_fsdp"])
def test_training_goes_on_with_the_same_bits(reports, world_size, scenario):
    for report in reports(world_size):
        assert len(report[scenario]) >= 2
        assert all(report[scenario].values()), report[scenario]


def test_nothing_is_left_changed(reports):
    for report in reports(2):
        assert report["nothing_changed_fsdp"]["changed"] == []


def test_it_starts_and_ends_with_shards(reports):
    for report in reports(2):
        found = report["full_weights_fsdp"]
        assert found["same training"]
        assert found["held"] == found["in all"] / 2
        assert found["bytes copied"] == 4 * (24 * 24 + 24) / 2


def test_losses_are_means_over_ranks(reports):
    results = [report["result_fsdp"] for report in reports(2)]
    for result in results:
        np.testing.assert_allclose(result["losses"], np.mean([each["own"] for each in results], axis=0), rtol=1e-12)
    assert results[0]["suggestions"] == results[1]["suggestions"]


def test_skips_of_the_scaler_are_the_same(reports):
    for report in reports(2):
        assert report["scaler_fsdp"] == {"changed": [], "indices": [0, 1, 2, *range(4, 10)], "steps": 12, "scale": 8.0}


def test_gradient_norms_are_those_of_the_mean_gradient_over_all_shards(reports):
    first, second = (report["grad_norms_fsdp"] for report in reports(2))
    assert first["ddp"] == second["ddp"]
    for kind in ("ddp", "fsdp"):
        np.testing.assert_allclose(first[kind][0], first[f"{kind} by hand"], rtol=1e-5)
        np.testing.assert_allclose(first[f"{kind} clipped"], first[kind], rtol=1e-4)
        np.testing.assert_allclose(second[kind], first[kind], rtol=1e-6)
        np.testing.assert_allclose(second[f"{kind} clipped"], first[f"{kind} clipped"], rtol=1e-6)
    if torch.__version__ >= "2.8":  # FSDP2 of torch 2.7 adds gradients up on the CPU, DDP averages them
        np.testing.assert_allclose(first["fsdp"], first["ddp"], rtol=1e-4)
