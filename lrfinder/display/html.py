"""A result as HTML, for notebooks."""

from html import escape

from lrfinder.display.summary import Summary

__all__ = ["html_block"]


def html_block(summary: Summary, picture: str) -> str:
    """Return the same content as `text_block` as a table, with a picture.

    Args:
        summary: What the result says.
        picture: A PNG in base64, or nothing.

    Returns:
        HTML without any script or style sheet.
    """
    cells = "".join(
        f"<tr><td style='text-align:left'>{escape(row.name)}</td><td>{escape(row.value)}</td>"
        f"<td style='text-align:left'>{escape(row.text)}</td></tr>"
        for row in summary.rows
    )
    table = f"<table>{cells}</table>" if cells else ""
    notes = "".join(f"<p>⚠ {escape(sentence)}</p>" for sentence in summary.warnings)
    image = f'<img alt="loss against learning rate" src="data:image/png;base64,{picture}"/>' if picture else ""
    last = f"<p><code>{escape(summary.last)}</code></p>"
    return f"<p>LR range test: {escape(summary.headline)}</p>{table}{notes}{image}{last}"
