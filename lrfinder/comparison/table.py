"""Results side by side as a table."""

from collections.abc import Mapping

import numpy as np

from lrfinder.display import lr_text
from lrfinder.errors import NoSuggestionError
from lrfinder.result import RangeTestResult

__all__ = ["result_table", "suggested_lr"]


def result_table(kind: str, results: Mapping[str, RangeTestResult]) -> str:
    """Return a table with a line for each result.

    Args:
        kind: What the names are, the head of the first column.
        results: The results by name.

    Returns:
        Aligned columns: suggestion, divergence, lowest smoothed loss, and the lowest loss of refine's short trainings
        where there are any.
    """
    head = (kind, "suggestion", "divergence", "lowest loss", "probe loss")
    rows = [head, *(_row(name, result) for name, result in results.items())]
    if not any(result.probes for result in results.values()):
        rows = [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def suggested_lr(result: RangeTestResult) -> float | None:
    """Return the suggested learning rate, None where there is none.

    Args:
        result: The result.

    Returns:
        That of the swept group.
    """
    try:
        return result.suggestion.lr
    except NoSuggestionError:
        return None


def _row(name: str, result: RangeTestResult) -> tuple[str, ...]:
    suggestion, divergence = suggested_lr(result), result.landmarks.divergence
    return (
        name,
        "none" if suggestion is None else lr_text(suggestion),
        "none" if divergence is None else lr_text(divergence),
        f"{np.min(result.smoothed):.4g}" if len(result.smoothed) else "none",
        f"{min(loss for _, loss in result.probes):.4g}" if result.probes else "none",
    )
