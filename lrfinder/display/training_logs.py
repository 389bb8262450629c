"""Read the log of a training: CSV, JSON lines, transformers' `trainer_state.json`, Lightning's `metrics.csv`."""

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lrfinder.curve import Floats
from lrfinder.errors import ArgumentError

__all__ = ["LogRow", "TrainingLog", "log_of_rows", "log_rows"]

LogRow: TypeAlias = Mapping[str, Any]

# Names of columns, best first, in lower case with "_" for what separates words.
LOSS = ("loss", "train_loss", "training_loss", "loss_train", "train_loss_step", "loss_step", "train_loss_epoch",
        "loss_epoch", "batch_loss")  # fmt: skip
LR = ("lr", "learning_rate", "train_lr", "train_learning_rate")
VAL_LOSS = ("val_loss", "eval_loss", "valid_loss", "validation_loss", "val_loss_epoch", "loss_val", "test_loss")
STEP = ("step", "global_step", "train_global_step", "iteration", "iter", "epoch")
HELD_OUT = {
    "val",
    "valid",
    "validation",
    "eval",
    "test",
}  # a column with one of these in its name holds no training loss


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """What a log says about losses and learning rates.

    Args:
        losses: The training losses in order, shape (N,).
        lrs: The learning rate of each, None where the log has none.
        val_losses: The validation losses in order, None where the log has none.
        columns: The names of the columns that were used, of the loss, the learning rate and the validation loss.
        steps: The step, or the epoch, of each training loss, None where the log has no such column that grows.
        val_steps: The same of each validation loss.
        steps_name: The name of that column.
    """

    losses: Floats
    lrs: Floats | None
    val_losses: Floats | None
    columns: tuple[str, ...]
    steps: Floats | None = None
    val_steps: Floats | None = None
    steps_name: str = "step"


def log_rows(text: str, source: str) -> list[LogRow]:
    r"""Return the rows of a log; its format is recognised by what it holds.

    Args:
        text: The content: a JSON object with `log_history`, a JSON list of objects, a JSON object of columns, one JSON
            object per line, or a table with a header line, separated by commas, semicolons or tabs.
        source: The name of the file, for messages.

    Returns:
        One mapping per row.

    Raises:
        ArgumentError: It is none of these.

    Example:
        >>> log_rows("step,loss\n1,2.5\n2,2.25\n", "metrics.csv")
        [{'step': '1', 'loss': '2.5'}, {'step': '2', 'loss': '2.25'}]
    """
    text = text.removeprefix("\ufeff").strip()
    if not text:
        raise ArgumentError(f"{source} is empty; it must hold the losses of a training.")
    if text[0] in "[{":
        rows = _json_rows(text)
        if rows is None:
            raise ArgumentError(
                f"{source} looks like JSON but is neither an object with log_history, a list of objects, an object of "
                "columns, nor one object per line."
            )
        return rows
    return _table_rows(text, source)


def _json_rows(text: str) -> list[LogRow] | None:
    try:
        whole = json.loads(text)
    except ValueError:
        try:
            whole = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            return None
    if isinstance(whole, dict):
        columns = {name: values for name, values in whole.items() if isinstance(values, list)}
        whole = whole.get("log_history") or _transposed(columns) or [whole]
    rows: list[LogRow] = [row for row in whole if isinstance(row, dict)]
    return rows if rows and len(rows) == len(whole) else None


def _transposed(columns: Mapping[str, Sequence[Any]]) -> list[LogRow]:
    length = max((len(values) for values in columns.values()), default=0)
    return [{name: values[i] for name, values in columns.items() if i < len(values)} for i in range(length)]


def _table_rows(text: str, source: str) -> list[LogRow]:
    lines = text.splitlines()
    separator = max(",;\t", key=lines[0].count)
    try:
        rows: list[LogRow] = [
            {name.strip(): value for name, value in row.items() if name is not None and isinstance(value, str)}
            for row in csv.DictReader(lines, delimiter=separator)
        ]
    except csv.Error as error:
        raise ArgumentError(f"{source} is no table: {error}.") from error
    if not rows or all(_number(name) is not None for name in rows[0]):
        raise ArgumentError(
            f"{source} must be a table with a header line, such as step,loss,lr, or JSON; its first line is "
            f"{lines[0][:80]!r}."
        )
    return rows


def log_of_rows(
    rows: Iterable[LogRow], source: str, *, loss_column: str | None = None, lr_column: str | None = None
) -> TrainingLog:
    """Return the losses and learning rates in a log's rows.

    Rows with the same step are put together. Where a loss is exactly 0 and the gradient norm is not finite, the loss
    counts as NaN: transformers' `logging_nan_inf_filter` writes it so.

    Args:
        rows: One mapping per row, from name of the column to number or text.
        source: Where they are from, for messages.
        loss_column: The column of the training loss; by default one with a usual name.
        lr_column: The column of the learning rate; by default one with a usual name, or none.

    Returns:
        The log.

    Raises:
        ArgumentError: No column has a usual name, or the named one is not there; the message lists the columns.

    Example:
        >>> log = log_of_rows([{"step": 1, "loss": 2.5, "lr": 0.1}, {"step": 2, "loss": 2.25, "lr": 0.1}], "a list")
        >>> log.losses, log.columns
        (array([2.5 , 2.25]), ('loss', 'lr'))
    """
    columns = _columns(rows)
    loss = _named(loss_column, columns, source) or _usual(LOSS, columns) or _with_loss_in_its_name(columns)
    if loss is None:
        raise ArgumentError(
            f"{source} has no column with the training loss under a usual name; its columns are "
            f"{', '.join(columns) or 'none'}. Name the right one: --loss-column, or loss_column=..."
        )
    lr = _named(lr_column, columns, source) or _usual(LR, columns) or _with_lr_in_its_name(columns)
    val = _usual(VAL_LOSS, columns)
    places, val_places = _places(columns, loss), _places(columns, val)
    lrs = None if lr is None else _interpolated(columns[lr])
    step = _growing(columns, places)
    return TrainingLog(
        losses=_losses(columns, loss, places),
        lrs=None if lrs is None else lrs[places],
        val_losses=None if val is None else _at(columns[val], val_places),
        columns=tuple(name for name in (loss, lr, val) if name is not None),
        steps=None if step is None else _at(columns[step], places),
        val_steps=None if step is None or val is None else _at(columns[step], val_places),
        steps_name=step or "step",
    )


def _columns(rows: Iterable[LogRow]) -> dict[str, list[float | None]]:
    """Return the columns that hold numbers, None where a row has none; rows with the same step are one row."""
    merged: list[dict[str, float]] = []
    last = None
    for row in rows:
        numbers = {str(name): number for name, value in row.items() if (number := _number(value)) is not None}
        step = _usual(STEP, numbers)
        place = None if step is None else (step, numbers[step])
        known = merged[-1] if merged else {}
        if place is not None and place == last and all(known.get(name, n) == n for name, n in numbers.items()):
            known.update(numbers)
        else:
            merged.append(numbers)
        last = place
    names = dict.fromkeys(name for row in merged for name in row)
    return {name: [row.get(name) for row in merged] for name in names}


def _number(value: Any) -> float | None:
    """Return a value as a number, None where it is none or missing."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _usual(names: Sequence[str], columns: Iterable[str]) -> str | None:
    by_name = {_plain(name): name for name in reversed(list(columns))}
    return next((by_name[name] for name in names if name in by_name), None)


def _named(name: str | None, columns: Mapping[str, Any], source: str) -> str | None:
    if name is None or name in columns:
        return name
    raise ArgumentError(
        f"{source} has no column {name!r} with numbers; its columns are {', '.join(columns) or 'none'}."
    )


def _with_loss_in_its_name(columns: Iterable[str]) -> str | None:
    words = {name: _plain(name).split("_") for name in columns}
    return next((name for name, of in words.items() if "loss" in of and not HELD_OUT & set(of)), None)


def _with_lr_in_its_name(columns: Iterable[str]) -> str | None:
    words = {name: _plain(name).split("_") for name in columns}  # Lightning's LearningRateMonitor writes lr-Adam/pg1
    return next((name for name, of in words.items() if "lr" in of or "learning_rate" in _plain(name)), None)


def _places(columns: Mapping[str, Sequence[float | None]], name: str | None) -> list[int]:
    return [i for i, value in enumerate(columns.get(name or "", ())) if value is not None]


def _at(column: Sequence[float | None], places: Sequence[int]) -> Floats:
    return np.array([column[place] for place in places], dtype=np.float64)  # None becomes NaN


def _growing(columns: Mapping[str, Sequence[float | None]], places: Sequence[int]) -> str | None:
    """Return the column of steps or epochs that grows from loss to loss; a resumed training may count again."""
    by_name = {_plain(name): name for name in reversed(list(columns))}
    known = [by_name[name] for name in STEP if name in by_name]
    return next((name for name in known if (np.diff(_at(columns[name], places), prepend=-np.inf) > 0).all()), None)


def _losses(columns: Mapping[str, list[float | None]], loss: str, places: Sequence[int]) -> Floats:
    losses, norms = columns[loss], columns.get("grad_norm")
    found = []
    for place in places:
        norm = None if norms is None else norms[place]
        masked = losses[place] == 0 and norm is not None and not math.isfinite(norm)
        found.append(math.nan if masked else losses[place])
    return np.array(found, dtype=np.float64)


def _interpolated(column: Sequence[float | None]) -> Floats:
    known = {i: value for i, value in enumerate(column) if value is not None and math.isfinite(value)}
    if not known:
        return np.full(len(column), np.nan)
    return np.interp(np.arange(len(column)), list(known), list(known.values()))
