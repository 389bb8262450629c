"""Logs of every format give the same losses and learning rates; what fits none is named with its columns."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrfinder.display import log_of_rows, log_rows
from lrfinder.errors import ArgumentError

LOSSES, LRS, VAL = [2.5, 2.0, 1.75, 1.5], [0.1, 0.2, 0.2, 0.1], [2.25, 1.875]

CSV = "step,loss,lr,val_loss\n1,2.5,0.1,\n2,2.0,0.2,2.25\n3,1.75,0.2,\n4,1.5,0.1,1.875\n"
STATE = {
    "global_step": 4,
    "log_history": [
        {"step": 1, "loss": 2.5, "learning_rate": 0.1, "grad_norm": 1.0, "epoch": 0.5},
        {"step": 2, "loss": 2.0, "learning_rate": 0.2, "grad_norm": 1.0, "epoch": 1.0},
        {"step": 2, "eval_loss": 2.25, "eval_runtime": 0.1, "epoch": 1.0},
        {"step": 3, "loss": 1.75, "learning_rate": 0.2, "grad_norm": 1.0, "epoch": 1.5},
        {"step": 4, "loss": 1.5, "learning_rate": 0.1, "grad_norm": 1.0, "epoch": 2.0},
        {"step": 4, "eval_loss": 1.875, "eval_runtime": 0.1, "epoch": 2.0},
        {"step": 4, "train_loss": 1.9, "train_runtime": 3.0, "epoch": 2.0},
    ],
    "best_metric": None,
}
LIGHTNING = (
    "epoch,lr-Adam,step,train_loss_epoch,train_loss_step,val_loss\n"
    ",0.1,0,,,\n0,,0,,2.5,\n,0.2,1,,,\n0,,1,,2.0,\n0,,1,,,2.25\n0,,1,2.25,,\n"
    ",0.2,2,,,\n1,,2,,1.75,\n,0.1,3,,,\n1,,3,,1.5,\n1,,3,,,1.875\n1,,3,1.6,,\n"
)
LINES = "\n".join(
    json.dumps({"train/loss": loss, "train/learning_rate": lr}) for loss, lr in zip(LOSSES, LRS, strict=True)
)

FORMATS = {
    "csv": CSV,
    "semicolons": CSV.replace(",", ";"),
    "tabs": CSV.replace(",", "\t"),
    "byte order mark": "\ufeff" + CSV,
    "windows": CSV.replace("\n", "\r\n"),
    "trainer_state.json": json.dumps(STATE, indent=2),
    "metrics.csv": LIGHTNING,
    "json lines": LINES,
    "json list": json.dumps([json.loads(line) for line in LINES.splitlines()]),
    "json columns": json.dumps({"loss": LOSSES, "lr": LRS, "val_loss": VAL, "name": "run"}),
    "wandb": '"Step","run - loss","run - lr"\n1,2.5,0.1\n2,2.0,0.2\n3,1.75,0.2\n4,1.5,0.1\n',
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same(name):
    log = log_of_rows(log_rows(FORMATS[name], name), name)
    assert log.losses.tolist() == LOSSES
    assert log.lrs.tolist() == LRS
    if log.val_losses is not None:
        assert log.val_losses.tolist() == VAL


@pytest.mark.parametrize("name", ["csv", "trainer_state.json", "metrics.csv", "json columns"])
def test_validation_losses_are_found(name):
    assert log_of_rows(log_rows(FORMATS[name], name), name).val_losses.tolist() == VAL


def test_a_cell_that_is_nan_is_a_loss_and_an_empty_one_is_none():
    log = log_of_rows(log_rows("step,loss\n1,2.5\n2,\n3,nan\n4,inf\n", "x"), "x")
    assert str(log.losses.tolist()) == "[2.5, nan, inf]"
    assert log.lrs is None


def test_zero_that_transformers_writes_for_nan_counts_as_nan():
    rows = [{"loss": 2.0, "grad_norm": 1.0}, {"loss": 0.0, "grad_norm": math.nan}, {"loss": 0.0, "grad_norm": 0.5}]
    assert str(log_of_rows(rows, "x").losses.tolist()) == "[2.0, nan, 0.0]"


def test_learning_rates_between_those_logged_are_interpolated():
    rows = [{"lr": 0.1}, {"loss": 3.0}, {"lr": 0.3}, {"loss": 2.0}]
    np.testing.assert_allclose(log_of_rows(rows, "x").lrs, [0.2, 0.3])


@pytest.mark.parametrize(
    ("name", "steps", "val_steps", "steps_name"),
    [
        ("csv", [1, 2, 3, 4], [2, 4], "step"),
        ("trainer_state.json", [1, 2, 3, 4], [2, 4], "step"),
        ("metrics.csv", [0, 1, 2, 3], [1, 3], "step"),
        ("wandb", [1, 2, 3, 4], None, "Step"),
    ],
)
def test_steps_are_those_of_the_log(name, steps, val_steps, steps_name):
    log = log_of_rows(log_rows(FORMATS[name], name), name)
    assert (log.steps.tolist(), log.steps_name) == (steps, steps_name)
    assert (None if log.val_steps is None else log.val_steps.tolist()) == val_steps


def test_epochs_are_steps_where_there_are_no_others_that_grow():
    log = log_of_rows([{"epoch": epoch, "step": 9, "loss": 1.0 / epoch} for epoch in (1, 2, 3)], "x")
    assert (log.steps.tolist(), log.steps_name) == ([1, 2, 3], "epoch")


@pytest.mark.parametrize("steps", [[1, 2, 1], [1, 1, 2], [1, None, 2], [None] * 3, [math.nan, 1, 2]])
def test_steps_that_do_not_grow_are_left_out(steps):
    log = log_of_rows([{"step": step, "loss": 1.0 + index} for index, step in enumerate(steps)], "x")
    assert log.steps is None
    assert len(log.losses) == 3


def test_named_columns_win():
    rows = [{"loss": 1.0, "nll": 2.0, "lr": 0.1, "lr_head": 0.5}]
    log = log_of_rows(rows, "x", loss_column="nll", lr_column="lr_head")
    assert (log.losses.tolist(), log.lrs.tolist(), log.columns) == ([2.0], [0.5], ("nll", "lr_head"))


def test_a_column_with_loss_in_its_name_serves_unless_it_is_a_validation_loss():
    rows = [{"val/loss": 1.0, "metrics.ce_loss": 2.0}]
    assert log_of_rows(rows, "x").columns == ("metrics.ce_loss", "val/loss")


def test_without_a_loss_the_message_lists_the_columns():
    with pytest.raises(ArgumentError, match=r"log\.csv has no column with the training loss.*accuracy, time.*--loss"):
        log_of_rows([{"accuracy": 0.5, "time": 3.0}], "log.csv")
    with pytest.raises(ArgumentError, match=r"no column 'nll' with numbers; its columns are loss"):
        log_of_rows([{"loss": 1.0}], "log.csv", loss_column="nll")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x is empty"),
        ("  \n ", "x is empty"),
        ('{"loss": [1, 2]', "looks like JSON"),
        ("[1, 2, 3]", "looks like JSON"),
        ("[]", "looks like JSON"),
        ("1.0\n2.0\n", "table with a header line"),
        ("just a text", "table with a header line"),
    ],
)
def test_argument_error_for_a_file_that_is_not_a_log(text, message):
    with pytest.raises(ArgumentError, match=message):
        log_rows(text, "x")


@given(st.text())
def test_any_text_is_a_log_or_an_argument_error(text):
    try:
        log = log_of_rows(log_rows(text, "x"), "x")
    except ArgumentError:
        return
    assert len(log.losses)
