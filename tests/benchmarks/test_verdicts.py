"""Verdicts and diagnoses stay as good on the benchmark as the documentation says."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from lrfinder.curve import Level
from lrfinder.curve.classifier import probabilities
from lrfinder.curve.history import read_history
from lrfinder.curve.signs import measure_signs
from tests.benchmarks import diagnosis, diagnosis_fit, histories, random_histories, random_tasks, verdicts
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


def scores(cases, tasks, **form):
    scored = [case for case in cases if case.history.task in tasks]
    found = diagnosis.score(scored, [diagnosis.diagnosis_of(case.history, **form).verdict for case in scored])
    return {name: share for name, (share, _) in found.items()}


TARGETS = {"right": 0.85, "wrong": 0.02, "alarms": 0.10, "drops told": 0.70}


# On these no threshold was chosen at first; later their errors were looked at, and the networks learnt from them.
LOOKED_AT = (
    "spirals_mlp_nadam", "tiny_batch_mlp_adam", "large_batch_mlp_nesterov", "autoencoder_adam",
    "spread_regression_adam", "digits_softmax_sgd", "mnist1d_cnn_sgd", "text_lstm_nadam", "contrastive_mlp_adamw",
    "ratings_sparse_adagrad",
)  # fmt: skip


@pytest.mark.parametrize("val", [False, True])
def test_diagnoses_of_tasks_whose_errors_were_looked_at_reach_the_targets(cases, val):
    found = scores(cases, LOOKED_AT, val=val)
    assert found["right"] >= TARGETS["right"]
    assert found["wrong"] <= TARGETS["wrong"]
    assert found["alarms"] <= TARGETS["alarms"]
    assert found["drops told"] >= TARGETS["drops told"]


def test_diagnoses_with_validation_losses_reach_the_targets_on_tasks_that_were_learnt_from(cases):
    found = scores(cases, (*histories.FIRST, *histories.SECOND), val=True)
    assert found["right"] >= TARGETS["right"]
    assert found["wrong"] <= TARGETS["wrong"]
    assert found["alarms"] <= TARGETS["alarms"]
    assert found["drops told"] >= TARGETS["drops told"]


def test_diagnoses_without_validation_losses_on_tasks_that_were_learnt_from(cases):
    found = scores(cases, (*histories.FIRST, *histories.SECOND))
    assert found["right"] > 0.8  # the target, 0.85, needs validation losses
    assert found["wrong"] <= TARGETS["wrong"]
    assert found["alarms"] <= TARGETS["alarms"]
    assert found["drops told"] >= TARGETS["drops told"]


@pytest.mark.parametrize("name", ["right", "alarms"])
@pytest.mark.xfail(strict=True, reason="not reached on these tasks; the README has the numbers")
def test_diagnoses_of_tasks_that_were_held_out_reach_the_targets(cases, name):
    found = scores(cases, histories.HELD_OUT, val=True)[name]
    assert found <= TARGETS[name] if name == "alarms" else found >= TARGETS[name]


@pytest.mark.parametrize(("form", "least_right"), [({"val": True}, 0.75), ({}, 0.7), ({"points": 30}, 0.6)])
def test_diagnoses_of_tasks_that_were_held_out_are_hardly_ever_wrong(cases, form, least_right):
    found = scores(cases, histories.HELD_OUT, **form)
    assert found["wrong"] <= TARGETS["wrong"]
    assert found["drops told"] >= TARGETS["drops told"]
    assert found["right"] > least_right  # must not get worse
    assert found["alarms"] < 0.2


# -------------------------------------------------------------------------------------------------- random trainings
def test_a_random_training_is_the_same_every_time_and_its_histories_are_those_stored():
    seed = 7
    task = random_tasks.draw_task(seed)
    fresh, stored = histories.compact(random_histories.record(task)), random_histories.load()[task.name]
    np.testing.assert_allclose(fresh["val_losses"], stored["val_losses"], rtol=1e-2)
    assert fresh["best_lr"] == stored["best_lr"]
    assert len(random_histories.load()) == len(random_histories.SEEDS)


def test_a_copy_trains_as_torch_would_train_it_alone():
    task = dataclasses.replace(random_tasks.draw_task(12), total_steps=20)
    assert task.optimizer == "AdamW"
    losses, _, _ = random_tasks.train_copies(task, np.tile([0.1, 0.01], (20, 1)))
    torch.manual_seed(task.seed)
    model = task.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=task.weight_decay)
    batches = random_tasks.batches_of(task)
    alone = []
    for _ in range(20):
        inputs, targets = next(batches)
        optimizer.zero_grad()
        loss = task.loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()
        alone.append(loss.item())
    np.testing.assert_allclose(losses[:, 1], alone, rtol=1e-4)


def test_networks_are_fitted_as_they_are_stored():
    rows = diagnosis_fit.textbook_rows()
    model = diagnosis_fit.fit([rows], "losses") | diagnosis_fit.UNKNOWN
    stored = json.loads(diagnosis_fit.PATH.read_text())["losses"]
    assert model["inputs"] == stored["inputs"]
    assert [np.shape(model["networks"][0][name]) for name in stored["networks"][0]] == [
        np.shape(values) for values in stored["networks"][0].values()
    ]
    rng = np.random.default_rng(5)
    steady = read_history(1 - np.arange(200) / 200 + 0.003 * rng.standard_normal(200), None)
    assert probabilities(measure_signs(steady), None, {"losses": model}).too_low > 0.8
