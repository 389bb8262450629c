"""The command `lrfinder run`: a range test on the training setup that a user's function builds.

This file imports little at its top, as `commands` does.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from typing import Any

from lrfinder.cli.comparison_command import read_settings
from lrfinder.cli.console import note, say, stdout_to_stderr
from lrfinder.cli.result_commands import command_line_block, exit_status
from lrfinder.errors import ArgumentError

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run", "shows_bar"]

SUMMARY = "run a range test on your own training setup"
EPILOG = """\
TARGET is file.py:function or package.module:function; the current folder is
importable. The function is called with the arguments of --set and returns
  (model, optimizer, criterion, loader)   criterion is None if the model
                                          returns its loss, or
  (LRFinder, loader)                      for everything else: mixed precision,
                                          accumulation, a loss_fn.
It sees an empty command line, so that a script's argparse returns its defaults.

For example, with this in train.py

  def build(width=32):
      model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))
      optimizer = torch.optim.Adam(model.parameters())
      return model, optimizer, nn.MSELoss(), train_loader

  lrfinder run train.py:build --set width=64 --total-steps 10000 --plot lr.png
  lrfinder run train.py:build --json - | jq .suggestions.auto.lr

In several processes, where build calls init_process_group and wraps the model,
the first rank prints and writes:

  torchrun --nproc-per-node 2 -m lrfinder run train.py:build"""


def add_arguments(parser: argparse.ArgumentParser, *, options: bool) -> None:
    """Add the arguments of the command.

    Args:
        parser: The command's parser.
        options: Whether to add those of `LRFinder.find`, which loads torch.
    """
    parser.add_argument("target", metavar="TARGET", help="file.py:function or package.module:function, see below")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                        help="argument for the function: a Python literal, else a string; repeatable")  # fmt: skip
    several = parser.add_mutually_exclusive_group()
    several.add_argument("--compare", metavar="KEY=V1,V2", action="append", default=[],
                         help="run once for each value of an optimizer's hyperparameter, for example "
                              "weight_decay=0,1e-4; repeatable: then all combinations are run")  # fmt: skip
    several.add_argument("--each-group", action="store_true",
                         help="run for all parameter groups together, then for each one alone")  # fmt: skip
    parser.add_argument("--plot", metavar="FILE", help="draw the curve: lr.png, lr.svg, lr.pdf")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="save the result; - writes it, and nothing else, to stdout, and all that your code prints to stderr",
    )
    parser.add_argument(
        "--no-progress", action="store_true", help="show no progress bar; there is none where stderr is no terminal"
    )
    if options:
        _add_find_options(parser.add_argument_group("the range test", "Its options are those of LRFinder.find."))


def _add_find_options(group: Any) -> None:
    """Add the fields of `FindOptions` that have a help text; what is not given on the command line is left out."""
    from lrfinder.options import FindOptions

    for field in fields(FindOptions):
        text, name = field.metadata["help"], field.name.replace("_", "-")
        if text is None:
            continue
        if field.metadata["kind"] is bool:
            action = "store_false" if field.default else "store_true"
            name = f"no-{name}" if field.default else name
            group.add_argument(f"--{name}", action=action, dest=field.name, help=text, default=argparse.SUPPRESS)
            continue
        bare = field.metadata["bare"]
        group.add_argument(
            f"--{name}",
            type=field.metadata["kind"],
            metavar=field.metadata["metavar"],
            help=text if field.default in {None, False} else f"{text} ({field.default})",
            default=argparse.SUPPRESS,
            **({} if bare is None else {"nargs": "?", "const": bare}),
        )


def _find_options(args: argparse.Namespace) -> dict[str, Any]:
    from lrfinder.options import FindOptions

    names = [field.name for field in fields(FindOptions) if field.metadata["help"] is not None]
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def run(args: argparse.Namespace) -> int:
    """Run the range test, print its block and write its files.

    Args:
        args: The arguments of the command.

    Returns:
        The exit status.
    """
    from lrfinder.cli import entry_point
    from lrfinder.cli.output_files import PlotFile, TextFile
    from lrfinder.options import FindOptions

    options = _find_options(args)
    with _named_as_options():
        FindOptions(**options)
    values, compared = entry_point.keywords(args.settings), read_settings(args.compare)
    plot_file = None if args.plot is None else PlotFile("--plot", args.plot)
    file = None if args.json is None else TextFile("--json", args.json)
    json_alone = args.json == "-"
    with stdout_to_stderr() if json_alone else nullcontext(), _argv(args.target):
        finder, loader = entry_point.build(args.target, entry_point.load(args.target), values)
        with _named_as_options():
            options["progress"] = shows_bar(args)
            result = _find(finder, loader, options, compared, each_group=args.each_group)
    if _is_first_rank():
        (note if json_alone else say)(command_line_block(result))
        if file is not None:
            file.write(json.dumps(result.to_dict(), indent=1, allow_nan=False))
        if plot_file is not None:
            result.plot(plot_file.axes)
            plot_file.write()
    _leave_group()
    return exit_status(result)


def _find(finder: Any, loader: Any, options: dict[str, Any], compared: dict[str, Any], *, each_group: bool) -> Any:
    from lrfinder.comparison import compare, find_each_group

    if each_group:
        return find_each_group(finder, loader, **options)
    return compare(finder, loader, compared, **options) if compared else finder.find(loader, **options)


def _is_first_rank() -> bool:
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def _leave_group() -> None:
    """Leave the process group that the user's function has joined."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def shows_bar(args: argparse.Namespace) -> bool:
    """Return whether to show a progress bar.

    Args:
        args: The arguments of the command, `no_progress` among them.

    Returns:
        True unless it was refused or stderr is no terminal.
    """
    return not args.no_progress and sys.stderr.isatty()


@contextmanager
def _named_as_options() -> Iterator[None]:
    # Errors shall name `--num-iter`, not `LRFinder.find(num_iter=...)`.
    try:
        yield
    except ArgumentError as error:
        named = re.sub(r"LRFinder\.find\((\w+)=[^)]*\)", lambda call: f"--{call[1].replace('_', '-')}", str(error))
        named = named.replace("compare(settings=...)", "--compare")
        named = re.sub(r"find_each_group\(\w+=[^)]*\)", "--each-group", named)
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
