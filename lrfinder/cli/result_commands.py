"""The commands `lrfinder show` and `lrfinder plot`: what a saved result says, and several in one plot.

This file imports little at its top, as `commands` does.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrfinder.cli.console import say
from lrfinder.cli.status import FOUND, NO_SUGGESTION
from lrfinder.errors import ArgumentError, NoSuggestionError

__all__ = ["command_line_block", "exit_status", "plot", "show"]


def show(args: argparse.Namespace) -> int:
    """Print a saved result, and judge a learning rate by it.

    Args:
        args: The arguments of the command.

    Returns:
        The exit status, that of the run.

    Raises:
        ArgumentError: A learning rate was given for several results.
    """
    result = _load(args.result)
    say(command_line_block(result, args.result))
    if args.lr is not None:
        if _is_several(result):
            raise ArgumentError(f"--lr judges a learning rate by a single result, got several in {args.result!r}.")
        verdict = result.judge(args.lr)
        say(f"lr {args.lr:g} is {verdict.level.value}. {verdict.reason}")
    return exit_status(result)


def plot(args: argparse.Namespace) -> int:
    """Draw saved results into one plot.

    Args:
        args: The arguments of the command.

    Returns:
        The exit status.
    """
    from lrfinder.cli.output_files import PlotFile

    plot_file = PlotFile("-o", args.output)
    results = [_load(path) for path in args.results]
    names = [Path(path).name for path in args.results]
    if len(set(names)) < len(names):
        names = args.results
    for result, name in zip(results, names, strict=True):
        if _is_several(result):
            result.plot(plot_file.axes)  # under the names that they have
        else:
            result.plot(plot_file.axes, label=name)
    plot_file.write()
    return FOUND


def command_line_block(result: Any, path: str = "") -> str:
    """Return the block for the command line, where there is no variable `result`: its last line is code for a script.

    Args:
        result: The result, or a comparison of several.
        path: The file that it was loaded from, if it was.

    Returns:
        The block, with its warnings.
    """
    if _is_several(result):
        return "\n".join([str(result), *_warnings_of_several(result)])
    from lrfinder.display import length_text

    next_step = result.next_step
    if next_step is not None and path and "result" in next_step:  # of an integration
        next_step = f"result = lrfinder.RangeTestResult.load({path!r}); {next_step}"
    elif next_step is None and exit_status(result) == FOUND:
        lrs = [float(f"{lr:.2g}") for lr in result.group_lrs()]
        call = f'optimizer, "{result.context.schedule}", {lrs[0] if len(lrs) == 1 else lrs}'
        next_step = f"scheduler = lrfinder.make_scheduler({call}, total_steps={length_text(result)})"
    return str(replace(result, next_step=next_step, warnings_issued=False))


def _warnings_of_several(several: Any) -> list[str]:
    results, block = getattr(several, "results", several), str(several)
    pairs = ((name, sentence) for name, result in results.items() for sentence in result.warnings)
    return [f"warning: {name}: {sentence}" for name, sentence in pairs if sentence not in block]


def exit_status(result: Any) -> int:
    """Return whether a result has a suggestion, or a comparison a score, as an exit status.

    Args:
        result: The result, a comparison of several, or those of each group.

    Returns:
        `FOUND` or `NO_SUGGESTION`.
    """
    from lrfinder.comparison import Comparison, GroupResults

    if isinstance(result, Comparison):
        return FOUND if result.tied else NO_SUGGESTION
    try:
        result.group_lrs() if isinstance(result, GroupResults) else result.suggestion
    except NoSuggestionError:
        return NO_SUGGESTION
    return FOUND


def _is_several(result: Any) -> bool:
    from lrfinder.comparison import Comparison, GroupResults

    return isinstance(result, (Comparison, GroupResults))


def _load(path: str) -> Any:
    from lrfinder.comparison import Comparison, GroupResults
    from lrfinder.result import RangeTestResult

    try:
        start = Path(path).read_text(encoding="utf-8", errors="replace")[:40]
        kinds: dict[str, Any] = {'"comparison"': Comparison, '"groups"': GroupResults}
        kind = next((kinds[mark] for mark in kinds if mark in start), RangeTestResult)
        return kind.load(path)
    except OSError as error:
        raise ArgumentError(f"cannot read {path!r}: {error.strerror}.") from error
