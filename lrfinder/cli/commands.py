"""The command line: `lrfinder demo | run | show | plot | diagnose`.

This file imports little at its top, so that `--help` and a mistyped command are answered before torch is loaded.
"""

import argparse
import difflib
import math
import sys
from collections.abc import Sequence
from typing import Any

from lrfinder.cli import diagnosis_command, result_commands, run_command
from lrfinder.cli.console import note, say, short_warnings, their_traceback
from lrfinder.cli.status import FOUND, INTERRUPTED, NO_SUGGESTION, RAISED, USAGE
from lrfinder.errors import ArgumentError, NoSuggestionError, RankError
from lrfinder.version import __version__

__all__ = ["main"]

_EXAMPLES = """\
examples:
  lrfinder demo
  lrfinder run train.py:build --total-steps 10000 --plot lr.png --json lr.json
  lrfinder run my.package:setup --start-lr 1e-6 --end-lr 1 --set width=64
  lrfinder show lr.json
  lrfinder plot adam.json sgd.json -o both.png
  lrfinder diagnose trainer_state.json --plot diagnosis.png

exit status:
  0    found a learning rate
  1    your code raised; its traceback is on stderr
  2    bad usage, explained in one line
  3    no suggestion or no clear verdict; the reason is printed, and the files
       are written
  130  interrupted

`python -m lrfinder` is the same command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its arguments, those of the process by default.

    Returns:
        The exit status: 0 found, 1 the user's code raised, 2 bad usage, 3 no suggestion possible, 130 interrupted.
    """
    try:
        args = _parse(sys.argv[1:] if argv is None else argv)
    except SystemExit as end:  # argparse has printed the help, or what is wrong
        return int(end.code or 0)
    with short_warnings():
        return _status(args)


def _status(args: argparse.Namespace) -> int:
    try:
        return int(args.run(args))
    except ArgumentError as error:
        note(f"lrfinder {args.command}: error: {error}")
        return USAGE
    except KeyboardInterrupt:
        note(f"lrfinder {args.command}: interrupted")
        return INTERRUPTED
    except NoSuggestionError as error:
        note(f"lrfinder {args.command}: no suggestion: {error}")
        return NO_SUGGESTION
    except RankError as error:  # the rank that failed shows the traceback
        note(f"lrfinder {args.command}: {error}")
        return RAISED
    except SystemExit as end:
        note(f"lrfinder {args.command}: your code ended Python with {end!r}")
        return RAISED
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises is shown and gives a status
        note(their_traceback(error))
        return RAISED


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lrfinder",
        description="Learning-rate range tests for PyTorch. `lrfinder COMMAND --help` says more about each command.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lrfinder {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_demo(commands)
    run = _command(commands, "run", run_command.run, run_command.SUMMARY, run_command.EPILOG)
    run_command.add_arguments(run, options="run" in argv)
    _add_show(commands)
    _add_plot(commands)
    diagnose = _command(
        commands, "diagnose", diagnosis_command.run, diagnosis_command.SUMMARY, diagnosis_command.EPILOG
    )
    diagnosis_command.add_arguments(diagnose)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        command = commands.choices[args.command]
        known = [option for action in command._actions for option in action.option_strings]
        close = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        command.error(f"unknown argument {unknown[0]!r}{f'; did you mean {close[0]}?' if close else ''}")
    return args


def _command(commands: Any, name: str, run: Any, summary: str, epilog: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _add_demo(commands: Any) -> None:
    parser = _command(
        commands,
        "demo",
        _demo,
        "find a learning rate for a small CNN on real handwritten digits, then train with it and with the usual one",
        'It needs scikit-learn: pip install "lrfinder[demo]".',
    )
    parser.add_argument("--plot", metavar="FILE", default="lrfinder-demo.png", help="where to draw (%(default)s)")
    parser.add_argument("--epochs", metavar="N", type=_count, default=10, help="length of a training (%(default)s)")
    parser.add_argument(
        "--seeds", metavar="N", type=_count, default=3, help="trainings per learning rate (%(default)s)"
    )
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")


def _add_show(commands: Any) -> None:
    summary = "print a saved result as `run` did, with the same exit status"
    parser = _command(commands, "show", result_commands.show, summary)
    parser.add_argument("result", metavar="RESULT.json", help="saved by `lrfinder run --json`")
    parser.add_argument(
        "--lr", metavar="LR", type=_learning_rate, help="also judge this learning rate: is it too low or too high?"
    )


def _add_plot(commands: Any) -> None:
    summary = "draw saved results into one plot, each named after its file"
    parser = _command(commands, "plot", result_commands.plot, summary)
    parser.add_argument("results", metavar="RESULT.json", nargs="+", help="saved by `lrfinder run --json`")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the plot: lr.png, lr.svg, lr.pdf")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _learning_rate(text: str) -> float:
    try:
        lr = float(text)
    except ValueError:
        lr = math.nan
    if not 0 < lr < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive, finite number, got {text!r}")
    return lr


def _demo(args: argparse.Namespace) -> int:
    from lrfinder.cli import demo
    from lrfinder.cli.output_files import PlotFile

    plot_file = PlotFile("--plot", args.plot)
    digits = demo.load_digits()
    with demo.one_thread():
        result = demo.find_lr(digits, args.epochs, progress=run_command.shows_bar(args))
        say(result_commands.command_line_block(result))
        result.plot(plot_file.axes)
        plot_file.write()
        say(f"plot: {args.plot}")
        lrs = {"suggested": result.suggestion.lr, "usual": demo.USUAL_LR}
        steps = args.epochs * len(digits.loader())
        say(f"\nAdam and OneCycle for {steps:,} steps, accuracy on {len(digits.test)} test images:")
        accuracies = demo.compare(digits, args.epochs, lrs.values(), range(args.seeds))
    say(demo.accuracy_table({name: (lr, accuracies[lr]) for name, lr in lrs.items()}))
    return FOUND
