"""A result as HTML, for notebooks."""

import html
from collections.abc import Mapping, Sequence

from lrfinder.curve import Suggestion
from lrfinder.display.text import rate

__all__ = ["html_block"]


def html_block(
    headline: str, suggestions: Mapping[str, Suggestion], warnings: Sequence[str], advice: str, picture: str
) -> str:
    """Write the same for a notebook: a table of all rules and a picture.

    Args:
        headline: Outcome, steps and seconds.
        suggestions: By rule.
        warnings: What casts doubt on the curve.
        advice: What to do now.
        picture: A PNG in base64, or nothing.

    Returns:
        HTML without any script or style sheet.
    """
    rows = "".join(
        f"<tr><td>{html.escape(rule)}</td><td>{rate(found)}</td>"
        f"<td style='text-align:left'>{html.escape(found.reason)}</td></tr>"
        for rule, found in suggestions.items()
    )
    table = f"<table><tr><th>rule</th><th>learning rate</th><th>reason</th></tr>{rows}</table>" if rows else ""
    notes = "".join(f"<p>⚠ {html.escape(sentence)}</p>" for sentence in warnings)
    image = f'<img alt="loss against learning rate" src="data:image/png;base64,{picture}"/>' if picture else ""
    advice = f"<p><code>{html.escape(advice)}</code></p>"
    return f"<p>LR range test: {html.escape(headline)}</p>{table}{notes}{image}{advice}"
