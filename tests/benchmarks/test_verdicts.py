"""Verdicts and diagnoses stay as good on the benchmark as the documentation says."""

import numpy as np
import pytest

from lrfinder.curve import Level
from tests.benchmarks import diagnosis, histories, verdicts
from tests.benchmarks.tasks import fingerprint


@pytest.fixture(scope="module")
def judged():
    return verdicts.judge_all()


@pytest.fixture(scope="module")
def cases():
    return diagnosis.load_cases()


def test_verdicts_on_learning_rates_keep_their_promises(judged):
    found = verdicts.score(judged)
    assert found["bad that are not GOOD"] >= 0.85
    assert found["of those, direction right"] >= 0.97
    assert found["good that are GOOD, LOW or HIGH"] >= 0.85
    assert found["good that are TOO_HIGH"] == 0
    assert found["unknown"] < 0.02


def test_levels_further_from_good_cost_more(judged):
    cost = {level: np.mean([each.regret for each in judged if each.level is level]) for level in Level}
    assert cost[Level.GOOD] < cost[Level.LOW] < cost[Level.TOO_LOW]
    assert cost[Level.GOOD] < cost[Level.HIGH] < cost[Level.TOO_HIGH]


def test_histories_are_complete_and_belong_to_the_source_as_it_is(cases):
    assert {case.history.task for case in cases} == set(histories.TASK_NAMES)
    per_task = 3 * len(histories.FACTORS) + len(histories.DROPS) * len(histories.DROP_FACTORS)
    assert len(cases) == per_task * len(histories.TASK_NAMES)
    tasks = histories.TASKS
    assert len({fingerprint(tasks[name], histories.train) for name in tasks}) == len(tasks)


def test_no_task_is_both_chosen_on_and_held_out():
    assert len(set(histories.TASK_NAMES)) == len(histories.TASK_NAMES)
    assert len(histories.HELD_OUT) >= 12


@pytest.mark.parametrize("name", ["iris 4-3 ReLU SGD 200", "wine 13-16-3 ReLU SGD with momentum 200"])
def test_further_tasks_start_where_their_stored_trainings_did(name):
    starts = [h.start for h in histories.load_histories() if h.task == name]
    np.testing.assert_allclose(starts, histories.TASKS[name].build(0).evaluate(), rtol=1e-4)


def test_stored_losses_are_those_of_a_fresh_training():
    stored = next(
        h for h in histories.load_histories() if (h.task, h.schedule, h.factor) == ("iris_softmax_sgd", "constant", 1.0)
    )
    best = stored.lrs[0]
    losses, val_losses, start = histories.train("iris_softmax_sgd", np.full(stored.total_steps, best))
    np.testing.assert_allclose(stored.losses, losses, atol=0.05)
    np.testing.assert_allclose(stored.val_losses, val_losses, rtol=1e-3)
    assert start == pytest.approx(stored.start)


def test_schedules_by_hand():
    np.testing.assert_allclose(histories.multipliers("linear", 4), [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(histories.multipliers("constant", 2), [1, 1])
    np.testing.assert_allclose(histories.multipliers("drop_10", 10, place=1), [1] + [0.1] * 9)
    cycle = histories.multipliers("one_cycle", 1000)
    assert cycle[0] == pytest.approx(0.04)
    assert np.argmax(cycle) == 300
    assert cycle[-1] < 1e-4


def scores(cases, tasks):
    scored = [case for case in cases if case.history.task in tasks]
    found = diagnosis.score(scored, [diagnosis.diagnosis_of(case.history).verdict for case in scored])
    return {name: share for name, (share, _) in found.items()}


TARGETS = {"right": 0.85, "wrong": 0.02, "alarms": 0.10, "drops told": 0.70}
# These chose no constant at first; later their errors were looked at.
LOOKED_AT = (
    "spirals_mlp_nadam", "tiny_batch_mlp_adam", "large_batch_mlp_nesterov", "autoencoder_adam",
    "spread_regression_adam", "digits_softmax_sgd", "mnist1d_cnn_sgd", "text_lstm_nadam", "contrastive_mlp_adamw",
    "ratings_sparse_adagrad",
)  # fmt: skip


def test_diagnoses_of_tasks_whose_errors_were_looked_at_reach_the_targets(cases):
    found = scores(cases, LOOKED_AT)
    assert found["right"] >= TARGETS["right"]
    assert found["wrong"] <= TARGETS["wrong"]
    assert found["alarms"] <= TARGETS["alarms"]
    assert found["drops told"] >= TARGETS["drops told"]


@pytest.mark.parametrize("name", ["right", "alarms", "drops told"])
@pytest.mark.xfail(strict=True, reason="not reached yet on tasks that chose nothing; the README has the numbers")
def test_diagnoses_of_tasks_that_chose_nothing_reach_the_targets(cases, name):
    found = scores(cases, histories.HELD_OUT)[name]
    assert found <= TARGETS[name] if name == "alarms" else found >= TARGETS[name]


def test_diagnoses_of_tasks_that_chose_nothing_are_hardly_ever_wrong(cases):
    found = scores(cases, histories.HELD_OUT)
    assert found["wrong"] <= 0.02  # the target; the others are not reached here, and must not get worse
    assert found["right"] > 0.6
    assert found["alarms"] < 0.2
    assert found["drops told"] > 0.5


def test_diagnoses_of_tasks_that_chose_the_constants_stay_as_good(cases):
    found = scores(cases, (*histories.FIRST, *histories.SECOND))
    assert found["right"] > 0.8
    assert found["wrong"] <= 0.02
    assert found["alarms"] <= 0.10
    assert found["drops told"] > 0.6
