"""Guards for the further benchmarks: their truths are not stale, and their stored sweeps score as well as ever."""

import itertools

import numpy as np
import pytest

from lrfinder.curve import ladder
from tests.benchmarks import budget, fine_tuning, long, raw_targets, under_schedules
from tests.benchmarks.grid_search import load
from tests.benchmarks.measured import rung_of
from tests.benchmarks.ranges import CONDITIONS, PATH, RAW_TRUTH, STANDARD, TRUTH, curve_of, recorded_tasks, regret
from tests.benchmarks.regret import load_truth
from tests.benchmarks.schedules import SCHEDULES
from tests.benchmarks.side_by_side import Copy, train_side_by_side
from tests.benchmarks.tasks import TASKS, fingerprint, train
from tests.benchmarks.tasks.raw_targets import RAW_TARGETS, best_constant_loss
from tests.benchmarks.tasks.small import LONG, SHORT
from tests.benchmarks.warned import BAD, GOOD, cases


def test_truths_belong_to_the_source_as_it_is():
    stored = load(raw_targets.PATH)
    assert [name for name, task in RAW_TARGETS.items() if stored[name]["fingerprint"] != fingerprint(task)] == []
    assert set(load(under_schedules.PATH)) == set(SHORT)
    assert set(load(PATH)) == set(recorded_tasks())


def test_budgets_were_recorded_on_the_source_as_it_is():
    stored, tasks = load(budget.PATH), budget.recorded_tasks()
    assert set(stored) == set(tasks)
    marks = {name: entry["fingerprint"] for name, entry in stored.items() if name not in SHORT}
    assert marks == {name: fingerprint(tasks[name]) for name in marks}


def test_the_raw_targets_are_as_many_and_as_diverse_as_promised():
    assert len(RAW_TARGETS) >= 12
    assert {task.optimizer for task in RAW_TARGETS.values()} == {"SGD", "Adam", "AdamW", "RMSprop"}
    assert {task.batch_size for task in RAW_TARGETS.values()} >= {4, 32}


def test_no_progress_is_the_loss_of_the_best_constant():
    task = RAW_TARGETS["prices_relu_adam"]
    assert best_constant_loss(task) == pytest.approx(float(task.parts().val[1].var()), rel=0.05)


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_every_schedule_has_its_truth(schedule):
    assert len(load_truth(under_schedules.PATH, schedule)) >= 20


def test_a_training_side_by_side_ends_where_one_alone_does():
    task = TASKS["diabetes_linear_sgd"]
    _, after = train_side_by_side(task, [Copy(lr=0.01, seed=0), Copy(lr=0.03, seed=1)])
    assert after == pytest.approx([train(task, 0.01, 0)[1], train(task, 0.03, 1)[1]], rel=0.02)


def test_a_short_training_side_by_side_scores_as_one_alone_does():
    task = TASKS["diabetes_linear_sgd"]
    before, after, rises = budget.short_trainings(task, [Copy(lr=0.01, seed=0), Copy(lr=0.03, seed=1)], 40)
    for place, (lr, seed) in enumerate([(0.01, 0), (0.03, 1)]):
        held_out, alone = rung_of(task, seed, lr, 40, "one_cycle")
        assert held_out == budget.held_out_batches(task, 40) == before.shape[1]
        assert [before[place].mean(), after[place].mean()] == pytest.approx(alone["batches"], rel=1e-3)
        assert rises[place] == pytest.approx(alone["rise"], rel=1e-2)


def test_refine_is_better_than_searches_that_spend_as_much_as_its_default():
    found = budget.points(budget.load_cases())
    means = {name: np.mean(list(here[-1 if name == "auto" else 2].means.values())) for name, here in found.items()}
    assert budget.BUDGETS[2] == ladder.BUDGET
    assert means["refine"] == min(means.values()) < 0.06
    assert budget.table(found).count("\n") == len(found) + 1


def test_long_trainings_are_as_many_and_as_long_as_promised():
    truths = load_truth(long.PATH)
    steps = [LONG[name].total_steps for name in truths]
    assert set(truths) == set(LONG)
    assert len(truths) >= 10
    assert (min(steps), max(steps)) == (10_000, 100_000)


@pytest.mark.parametrize(
    ("label", "names", "most"),
    [
        ("1e-7 to 10, 100 points", STANDARD, 0.07),
        ("1e-7 to 10, 100 points", tuple(RAW_TARGETS), 0.15),
        ("1e-7 to 10, validation loss", tuple(RAW_TARGETS), 0.13),
    ],
)
def test_auto_holds_on_ranges_given_by_hand(label, names, most):
    entries, tasks = load(PATH), recorded_tasks()
    truths, condition = load_truth(TRUTH) | load_truth(RAW_TRUTH), CONDITIONS[label]
    found = [
        regret(tasks[name], truths[name], curve_of(tasks[name], condition, losses), val=condition.val)
        for name in names
        for losses in entries[name][label].values()
    ]
    assert np.mean([each for each in found if each is not None]) < most


def test_bad_suggestions_are_warned_of_more_often_than_good_ones():
    found = list(cases())
    bad, good = [each for each in found if each.regret > BAD], [each for each in found if each.regret < GOOD]
    assert np.mean([each.warned for each in good]) <= 0.1
    assert np.mean([each.warned for each in bad]) > 0.6


def test_auto_holds_in_fine_tuning():
    entries, truths = load(fine_tuning.PATH), load_truth(fine_tuning.PATH, fine_tuning.SCHEDULE)
    found = {}
    for kind, steps in itertools.product(fine_tuning.KINDS, fine_tuning.LENGTHS):
        task = fine_tuning.of_length(kind, steps)
        if task.name in truths:
            assert entries[task.name]["fingerprint"] == fingerprint(fine_tuning.KINDS[kind], fine_tuning.train)
            found[task.name] = np.mean([truths[task.name].regret(lr) for lr in fine_tuning.auto(entries[kind], task)])
    assert len(found) == len(fine_tuning.KINDS) * len(fine_tuning.LENGTHS) >= 12
    assert np.mean(list(found.values())) < 0.1
