"""What to do about a sweep that shows too little: sentences for warnings and errors."""

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.stop_rule import StopReason

__all__ = ["how_to_see_divergence", "why_few_points"]

BEGIN_AGAIN = "Pass a DataLoader or a list, which can be iterated again, or lower num_iter."
FAR_ABOVE = 10.0  # times the last learning rate of a scouted sweep that showed no divergence


def why_few_points(curve: Curve) -> str:
    """Return why a curve has few points, and what to do about it.

    Args:
        curve: The measured sweep.

    Returns:
        One or two sentences.
    """
    count = f"{len(curve)} point{'s' * (len(curve) != 1)}"
    if curve.stop_reason is None:
        return "It was interrupted. Run it to the end."
    if curve.stop_reason is StopReason.EXHAUSTED:
        return f"The data ended. {BEGIN_AGAIN}"
    if curve.stop_reason is StopReason.DIVERGED:
        return f"The loss diverged after {count}. Lower start_lr, or raise num_iter."
    if curve.stop_reason is StopReason.NONFINITE and not len(curve):
        return (
            "The very first loss was NaN or infinite, before the optimizer took a step. Look for the cause in the "
            "model, the data, the loss function or the precision."
        )
    if curve.stop_reason is StopReason.NONFINITE:
        return (
            f"The loss became NaN or infinite after {count}. Lower start_lr; if that does not help, look for the "
            "cause in the model or the data."
        )
    return curve.stop_reason.explanation


def how_to_see_divergence(curve: Curve, context: Context) -> str:
    """Return what to do about a sweep that ended before the loss diverged.

    Args:
        curve: The measured sweep, at least one point.
        context: What is known of the training; whether the user gave `end_lr`, among it.

    Returns:
        A sentence.
    """
    if curve.stop_reason is None:
        return "The sweep was interrupted; run it to the end."
    if curve.stop_reason is StopReason.EXHAUSTED:
        return f"The data ended. {BEGIN_AGAIN}"
    if context.end_lr is not None:
        return "Raise end_lr, or leave it out."
    return f"Pass a larger end_lr, such as end_lr={FAR_ABOVE * curve.lrs[-1]:.0e}."
