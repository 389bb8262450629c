"""The command line: `lrfinder demo | run | show | plot | diagnose`.

This file imports little at its top, so that `--help` and a mistyped option are answered before torch is needed.
"""

import argparse
import difflib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrfinder.cli import diagnosis_command
from lrfinder.cli.console import note, say, short_warnings, stdout_to_stderr, their_traceback
from lrfinder.curve import RULES
from lrfinder.errors import ArgumentError, NoSuggestionError, RankError
from lrfinder.version import __version__

if TYPE_CHECKING:  # this loads torch
    from lrfinder.result import RangeTestResult

__all__ = ["main"]

FOUND, RAISED, USAGE, NO_SUGGESTION, INTERRUPTED = 0, 1, 2, 3, 130

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
  2    bad usage
  3    no suggestion or no clear verdict; the reason is printed
  130  interrupted"""

_TARGET = """\
TARGET is file.py:function or package.module:function; the current folder is
importable. The function is called with the arguments of --set and returns
  (model, optimizer, criterion, loader)   criterion is None if the model
                                          returns its loss, or
  (LRFinder, loader)                      for everything else.

For example, with this in train.py

  def build(width=32):
      model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))
      optimizer = torch.optim.Adam(model.parameters())
      return model, optimizer, nn.MSELoss(), train_loader

  lrfinder run train.py:build --set width=64 --total-steps 10000 --plot lr.png

In several processes, where build calls init_process_group and wraps the model:

  torchrun --nproc-per-node 2 -m lrfinder run train.py:build"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Its arguments, those of the process by default.

    Returns:
        The exit status: 0 found, 1 the user's code raised, 2 bad usage, 3 no suggestion possible, 130 interrupted.
    """
    try:
        args = _parse(argv)
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


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lrfinder",
        description="Learning-rate range tests for PyTorch. `lrfinder COMMAND --help` says more about each command.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lrfinder {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (_add_demo, _add_run, _add_show, _add_plot, _add_diagnose):
        add(commands)
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
        "find a rate for a small CNN on real handwritten digits, then train with it and with the usual one",
        'It needs scikit-learn: pip install "lrfinder[demo]".',
    )
    parser.add_argument("--plot", metavar="FILE", default="lrfinder-demo.png", help="where to draw (%(default)s)")
    parser.add_argument("--epochs", metavar="N", type=_count, default=10, help="length of a training (%(default)s)")
    parser.add_argument("--seeds", metavar="N", type=_count, default=3, help="trainings per rate (%(default)s)")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")


def _add_run(commands: Any) -> None:
    parser = _command(commands, "run", _run, "run a range test on your own training setup", _TARGET)
    parser.add_argument("target", metavar="TARGET", help="file.py:function or package.module:function, see below")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                        help="argument for the function: a Python literal, else a string; repeatable")  # fmt: skip
    parser.add_argument("--plot", metavar="FILE", help="draw the curve: lr.png, lr.svg, lr.pdf")
    parser.add_argument("--json", metavar="FILE", help="save the result; - writes it, and nothing else, to stdout")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    find = parser.add_argument_group("the range test", "What is left out is as in LRFinder.find.")

    def option(name: str, kind: type, metavar: str, text: str) -> None:
        find.add_argument(f"--{name}", type=kind, metavar=metavar, help=text, default=argparse.SUPPRESS)

    option("start-lr", float, "LR", "first learning rate; left out, a scout finds it")
    option("end-lr", float, "LR", "last learning rate; likewise")
    option("num-iter", int, "N", "points of the sweep (100)")
    option("mode", str, "MODE", "exponential or linear spacing (exponential)")
    option("smoothing", str, "NAME", "gaussian, ema, median or none (gaussian)")
    option("rule", str, "RULE", f"{', '.join(RULES)} (auto)")
    option("total-steps", int, "N", "optimizer steps of the training to come: long trainings want smaller rates")
    option("schedule", str, "NAME", "its schedule: one_cycle, cosine, linear, constant and so on (one_cycle)")
    option("repeats", int, "N", "average so many sweeps over different batches (1)")
    find.add_argument("--refine", action="store_true", default=argparse.SUPPRESS,
                      help="also try a few rates in short annealed trainings; needs --total-steps")  # fmt: skip


_FIND = ("start_lr", "end_lr", "num_iter", "mode", "smoothing", "rule", "total_steps", "schedule", "repeats", "refine")


def _add_show(commands: Any) -> None:
    parser = _command(commands, "show", _show, "print a saved result as `run` did; also with the same exit status")
    parser.add_argument("result", metavar="RESULT.json", help="saved by `lrfinder run --json`")


def _add_plot(commands: Any) -> None:
    parser = _command(commands, "plot", _plot, "draw saved results into one picture, each named after its file")
    parser.add_argument("results", metavar="RESULT.json", nargs="+", help="saved by `lrfinder run --json`")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the picture: lr.png, lr.svg, lr.pdf")


def _add_diagnose(commands: Any) -> None:
    parser = _command(commands, "diagnose", diagnosis_command.run, diagnosis_command.SUMMARY, diagnosis_command.EPILOG)
    diagnosis_command.add_arguments(parser)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def _demo(args: argparse.Namespace) -> int:
    from lrfinder.cli import demo
    from lrfinder.cli.output_files import PictureFile

    picture = PictureFile("--plot", args.plot)
    digits = demo.load_digits()
    with demo.one_thread():
        result = demo.find_rate(digits, args.epochs, progress=_bar(args))
        say(_block(result))
        result.plot(picture.axes)
        picture.write()
        say(f"plot: {args.plot}")
        rates = {"suggested": result.suggestion.lr, "usual": demo.USUAL_LR}
        steps = args.epochs * len(digits.loader())
        say(f"\nAdam and OneCycle for {steps:,} steps, accuracy on {len(digits.test)} test images:")
        accuracies = demo.compare(digits, args.epochs, rates.values(), range(args.seeds))
    say(demo.accuracy_table({name: (rate, accuracies[rate]) for name, rate in rates.items()}))
    return FOUND


def _run(args: argparse.Namespace) -> int:
    from lrfinder.cli import entry_point
    from lrfinder.cli.output_files import PictureFile, TextFile
    from lrfinder.options import FindOptions

    options = {name: getattr(args, name) for name in _FIND if hasattr(args, name)}
    with _named_as_options():
        FindOptions(**options)
    values = entry_point.keywords(args.settings)
    picture = None if args.plot is None else PictureFile("--plot", args.plot)
    file = None if args.json is None else TextFile("--json", args.json)
    json_alone = args.json == "-"
    with stdout_to_stderr() if json_alone else nullcontext(), _argv(args.target):
        finder, loader = entry_point.build(args.target, entry_point.load(args.target), values)
        result = finder.find(loader, progress=_bar(args), **options)
    if _is_first_rank():
        (note if json_alone else say)(_block(result))
        if file is not None:
            file.write(json.dumps(result.to_dict(), indent=1, allow_nan=False))
        if picture is not None:
            result.plot(picture.axes)
            picture.write()
    _leave_group()
    return _found(result)


def _show(args: argparse.Namespace) -> int:
    result = _load(args.result)
    say(_block(result, args.result))
    return _found(result)


def _plot(args: argparse.Namespace) -> int:
    from lrfinder.cli.output_files import PictureFile

    picture = PictureFile("-o", args.output)
    results = [_load(path) for path in args.results]
    names = [Path(path).name for path in args.results]
    if len(set(names)) < len(names):
        names = args.results
    for result, name in zip(results, names, strict=True):
        result.plot(picture.axes, label=name)
    picture.write()
    return FOUND


def _load(path: str) -> "RangeTestResult":
    from lrfinder.result import RangeTestResult

    try:
        return RangeTestResult.load(path)
    except OSError as error:
        raise ArgumentError(f"cannot read {path!r}: {error.strerror}.") from error


def _block(result: "RangeTestResult", path: str = "") -> str:
    """Return the block for the command line, where there is no variable `result`: its last line is code for a script.

    Args:
        result: The result.
        path: The file that it was loaded from, if it was.
    """
    from lrfinder.display import length_text

    next_step = result.next_step
    if next_step is not None and path:  # of an integration
        next_step = f"result = lrfinder.RangeTestResult.load({path!r}); {next_step}"
    elif next_step is None and _found(result) == FOUND:
        lrs = [float(f"{lr:.2g}") for lr in result.group_lrs()]
        call = f'optimizer, "{result.context.schedule}", {lrs[0] if len(lrs) == 1 else lrs}'
        next_step = f"scheduler = lrfinder.make_scheduler({call}, total_steps={length_text(result)})"
    return str(replace(result, next_step=next_step, warnings_issued=False))


def _found(result: "RangeTestResult") -> int:
    try:
        result.suggestion  # noqa: B018 - asked for its error; the printed block gives the reason
    except NoSuggestionError:
        return NO_SUGGESTION
    return FOUND


def _is_first_rank() -> bool:
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def _leave_group() -> None:
    """Leave the process group that the user's function has joined; nobody else is there to do it."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _bar(args: argparse.Namespace) -> bool:
    return not args.no_progress and sys.stderr.isatty()


@contextmanager
def _named_as_options() -> Iterator[None]:
    # Errors shall name `--num-iter`, not `LRFinder.find(num_iter=...)`.
    try:
        yield
    except ArgumentError as error:
        named = re.sub(r"LRFinder\.find\((\w+)=[^)]*\)", lambda call: f"--{call[1].replace('_', '-')}", str(error))
        raise ArgumentError(named) from error


@contextmanager
def _argv(*words: str) -> Iterator[None]:
    """Let the user's code see its own command line, without our options, which its argparse would refuse."""
    ours = sys.argv
    sys.argv = list(words)
    try:
        yield
    finally:
        sys.argv = ours
