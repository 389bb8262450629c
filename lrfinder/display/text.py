"""A result as a block of text, for terminals."""

from lrfinder.display.summary import Summary

__all__ = ["text_block"]


def text_block(summary: Summary) -> str:
    """Return the block that a terminal shows.

    Args:
        summary: What the result says.

    Returns:
        Several lines.
    """
    lines = [f"LR range test: {summary.headline}"]
    lines += [f"  {row.name:<10}  {row.value}{'   ' * bool(row.value)}{row.text}".rstrip() for row in summary.rows]
    lines += [f"warning: {sentence}" for sentence in summary.warnings]
    return "\n".join([*lines, summary.last])
