"""The command `lrfinder diagnose`: the log of a training becomes a verdict on its learning rate.

This file imports little at its top, as `commands` does.
"""

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrfinder.cli.console import note, say
from lrfinder.errors import ArgumentError

if TYPE_CHECKING:  # loads torch
    from lrfinder.curve import Diagnosis
    from lrfinder.display import TrainingLog

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "tell from the log of a training whether its learning rate was too high or too low"
EPILOG = """\
FILE is what a training wrote: CSV with a header, JSON lines, transformers'
trainer_state.json, Lightning's metrics.csv; - reads stdin. The columns are
found by their names (loss, lr or learning_rate, val_loss or eval_loss, step).

  lrfinder diagnose outputs/checkpoint-500/trainer_state.json --plot lr.png
  lrfinder diagnose log.csv --loss-column train/nll --lr-column sched/lr"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Args:
        parser: The command's parser.
    """
    parser.add_argument("file", metavar="FILE", help="the log of a training; - is stdin")
    parser.add_argument("--plot", metavar="FILE", help="draw loss and learning rate: lr.png, lr.svg, lr.pdf")
    parser.add_argument("--json", metavar="FILE", help="save the diagnosis; - writes it, and nothing else, to stdout")
    parser.add_argument("--loss-column", metavar="NAME", help="the column with the training loss")
    parser.add_argument("--lr-column", metavar="NAME", help="the column with the learning rate")
    parser.add_argument(
        "--total-steps",
        metavar="N",
        type=int,
        help="rows with a loss that the whole log will have, if the training still runs",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Args:
        args: The parsed arguments.

    Returns:
        The exit status: 0, or 3 where the log does not tell.
    """
    from lrfinder.cli.output_files import PlotFile, TextFile
    from lrfinder.curve import TrainingVerdict, diagnose
    from lrfinder.display import plot_diagnosis

    plot_file = None if args.plot is None else PlotFile("--plot", args.plot)
    file = None if args.json is None else TextFile("--json", args.json)
    log = _read(args)
    found = diagnose(log.losses, log.lrs, val_losses=log.val_losses, total_steps=args.total_steps)
    (note if args.json == "-" else say)(f"{found}\n  columns: {', '.join(log.columns)}, {len(log.losses):,} losses")
    if file is not None:
        file.write(json.dumps(_plain(found), indent=1, allow_nan=False))
    if plot_file is not None:
        plot_diagnosis(
            found,
            log.losses,
            log.lrs,
            val_losses=log.val_losses,
            steps=log.steps,
            val_steps=log.val_steps,
            steps_name=log.steps_name,
            ax=plot_file.axes,
        )
        plot_file.write()
    return 3 if found.verdict is TrainingVerdict.UNCLEAR else 0


def _read(args: argparse.Namespace) -> "TrainingLog":
    from lrfinder.display import log_of_rows, log_rows

    source = "stdin" if args.file == "-" else repr(args.file)
    try:
        text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"cannot read {args.file!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{source} is no text file: {error}.") from error
    return log_of_rows(log_rows(text, source), source, loss_column=args.loss_column, lr_column=args.lr_column)


def _plain(found: "Diagnosis") -> dict[str, Any]:
    evidence = {name: value if math.isfinite(value) else None for name, value in found.evidence.items()}
    return {**asdict(found), "verdict": found.verdict.name, "evidence": evidence}
