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
    for row in summary.rows:
        value = f"{row.value:<7}   " if row.value else ""
        lines.append(f"  {row.name:<10}  {value}{row.text}".rstrip())
    lines += [f"warning: {sentence}" for sentence in summary.warnings]
    return "\n".join([*lines, summary.last])
