"""A guard for the benchmark: its parts hold together, its truth is not stale, a cut of it scores as well as ever."""

import importlib
import json

import numpy as np
import pytest

from lrfinder.curve import ladder as refine
from tests.benchmarks import measured, truth
from tests.benchmarks.ablation import VARIANTS, climb
from tests.benchmarks.baselines import BASELINES
from tests.benchmarks.constants import AUTO, REFINE, left_out
from tests.benchmarks.quality import load_cases, our_rows, suggested, table
from tests.benchmarks.regret import Truth, bootstrap_interval, load_truth
from tests.benchmarks.tasks import TASKS, fingerprint, train

CUT = ("iris_softmax_sgd", "diabetes_linear_sgd", "digits_mlp_sgd", "ratings_sparse_adagrad", "spread_regression_adam")
LONG = 2000


@pytest.fixture(scope="module")
def stored():
    return json.loads(truth.PATH.read_text())["tasks"]


@pytest.fixture(scope="module")
def cases():
    return load_cases()


def test_tasks_are_as_many_and_as_diverse_as_promised():
    optimizers = {task.optimizer for task in TASKS.values()}
    assert len(TASKS) >= 30
    assert optimizers == {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "Adamax", "Muon"}
    assert any(task.options.get("nesterov") for task in TASKS.values())
    assert {150, 10_000} <= {task.total_steps for task in TASKS.values()}
    assert sum(task.total_steps > LONG for task in TASKS.values()) <= 3


def test_truth_and_curves_belong_to_the_source_as_it_is(stored):
    stale = [name for name, task in TASKS.items() if stored[name]["fingerprint"] != fingerprint(task)]
    assert stale == [], "run python -m tests.benchmarks.truth"
    assert set(measured.load_measured()) == set(TASKS), "run python -m tests.benchmarks.measured"


@pytest.mark.parametrize("name", list(TASKS))
def test_truth_is_complete(name, stored):
    entry = stored[name]
    schedules = set(truth.SEEDS) if name in truth.ALSO_OTHER_SCHEDULES else {"one_cycle"}
    assert set(entry["final"]) == schedules
    for schedule in schedules:
        curve, seeds = entry["final"][schedule], {str(seed) for seed in truth.SEEDS[schedule]}
        assert all(set(finals) == seeds for finals in curve.values())
        losses = truth.mean_losses(curve, {seed: entry["start"][seed] for seed in seeds})
        assert truth.wanted(losses, TASKS[name].usual_lr) == set()
        assert min(losses) < min(losses, key=losses.get) < max(losses), "the best rate is at the grid's edge"


def test_fingerprint_changes_with_the_source_and_only_with_it():
    marks = [fingerprint(task) for task in TASKS.values()]
    assert len(set(marks)) == len(marks)
    assert marks == [fingerprint(task) for task in TASKS.values()]


def test_a_training_is_deterministic_and_reaches_the_stored_loss(stored):
    name, k, seed = "iris_softmax_sgd", -6, 0
    entry = stored[name]
    first, again = (train(TASKS[name], truth.rate(k), seed) for _ in range(2))
    assert first == again
    expected = entry["start"][str(seed)], entry["final"]["one_cycle"][str(k)][str(seed)]
    np.testing.assert_allclose(first, expected, rtol=0.02)


def test_regret_by_hand():
    # Two seeds, three rates; the second diverges at the largest.
    one = Truth(
        decades=np.array([-2.0, -1.0, 0.0]),
        starts=np.array([3.0, 5.0]),
        finals=np.array([[2.0, 3.0], [1.0, 2.0], [2.5, 5.0]]),
    )
    np.testing.assert_allclose(one.best, [1.0, 2.0])
    assert one.best_lr == pytest.approx(0.1)
    assert one.regret(0.1) == 0
    assert one.regret(0.01) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert one.regret(10**-1.5) == pytest.approx((1 / 4 + 1 / 6) / 2)  # linear in the logarithm
    assert one.regret(1.0) == pytest.approx((1.5 / 2 + 1) / 2)
    assert one.regret(100.0) == one.regret(1.0)
    assert one.regret(None) == one.regret(float("nan")) == 1
    assert one.regret_of_losses(np.array([np.nan, 2.0])) == pytest.approx(0.5)
    assert one.distance(1.0) == pytest.approx(1)


def test_the_best_lr_is_chosen_on_other_seeds():
    # Seed 0 alone would choose the first rate, the others the second: seed 0 is scored at what they choose.
    finals = np.array([[0.0, 2.0, 2.0], [1.0, 0.5, 0.5]])
    one = Truth(decades=np.array([-1.0, 0.0]), starts=np.full(3, 3.0), finals=finals)
    assert one.best[0] == 1.0


def test_bootstrap_interval_holds_the_mean():
    values = np.random.default_rng(1).random(40)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert bootstrap_interval(np.full(5, 0.3)) == pytest.approx((0.3, 0.3))


@pytest.mark.parametrize("name", list(BASELINES))
def test_baselines_find_the_fall_of_a_clear_curve(name):
    lrs = np.geomspace(1e-7, 10, 100)
    losses = 2.0 - 1.5 / (1 + (1e-2 / lrs) ** 2) + np.where(lrs > 0.3, (lrs / 0.3) ** 2, 0)
    found = BASELINES[name][1](lrs, losses)
    assert found is not None
    if name != "Lightning":  # its slope in the rate itself is steepest far below
        assert 1e-4 < found < 1.0


def test_auto_stays_as_good_on_the_stored_curves(cases):
    ours = {row.name: row for row in our_rows(cases)}
    assert np.mean(list(ours["auto"].means.values())) < 0.07
    assert np.mean(np.array(ours["auto"].cases) > 0.25) < 0.08
    assert np.mean(list(ours["auto without total_steps"].means.values())) < 0.08
    assert table(list(ours.values())).count("\n") == len(ours) + 1


def test_refine_stays_as_good_on_the_stored_short_trainings(cases):
    means = [np.mean([case.truth.regret(rate) for rate in climb(case)]) for case in cases]
    assert np.mean(means) < 0.035
    assert np.mean(np.array(means) > 0.25) < 0.05


def test_the_stored_short_trainings_are_those_that_refining_climbs(cases):
    for case in cases:
        for seed, found in case.measured["refined"].items():
            middle = case.measured["rungs"][seed]["middle"]
            rungs = refine.PER_DECADE * np.log10(np.array(found["probes"]) / middle)
            np.testing.assert_allclose(rungs, np.round(rungs), atol=1e-3)
            assert found["steps"] <= 130 + refine.BUDGET


@pytest.mark.parametrize("name", list(VARIANTS))
def test_each_variant_of_refining_climbs(name, cases):
    read, changed = VARIANTS[name]
    rates = [climb(case, **read, **changed) for case in cases[:5]]
    assert all(rate is not None and rate > 0 for each in rates for rate in each)


def test_constants_are_chosen_without_what_they_are_scored_on():
    # Over two tasks the second choice is the better one, unless the third task, which it suits, is left out.
    table = np.array([[0.0, 0.1, 0.9], [0.5, 0.6, 0.0]])
    assert left_out(table, ["a", "b", "c"]).tolist() == [0.5, 0.6, 0.9]
    assert left_out(table, ["a", "a", "b"]).tolist() == [0.5, 0.6, 0.9]


@pytest.mark.parametrize(("module", "grid"), [("auto", AUTO), ("ladder", REFINE)])
def test_the_constants_as_they_are_are_among_those_tried(module, grid):
    constants = vars(importlib.import_module(f"lrfinder.curve.{module}"))
    assert all(constants[name] in values for name, values in grid.items())


@pytest.mark.parametrize("name", CUT)
def test_auto_on_a_fresh_sweep(name, cases):
    case = next(case for case in cases if case.name == name)
    fresh = measured.find(TASKS[name], seed=7)
    assert fresh["steps"] <= 130
    (rate,) = suggested("auto", type(case)(name=name, truth=case.truth, measured={"find": {"7": fresh}}), horizon=True)
    assert case.truth.regret(rate) < 0.2


def test_truth_of_every_schedule_loads():
    assert (
        len(load_truth(truth.PATH, "constant"))
        == len(load_truth(truth.PATH, "cosine"))
        == len(truth.ALSO_OTHER_SCHEDULES)
    )
