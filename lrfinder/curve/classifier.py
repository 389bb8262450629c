"""How probable each diagnosis is: small networks that were trained on recorded trainings.

`tests/benchmarks/diagnosis_fit.py` trains them and writes `diagnosis.json` beside this file.
"""

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from lrfinder.curve.arrays import Floats
from lrfinder.curve.signs import Signs
from lrfinder.curve.val_signs import ValSigns

__all__ = ["Probabilities", "inputs_of", "probabilities"]

LOGARITHMIC = {  # signs that count by their logarithm, within these limits
    "fall": (0.3, 1e3),
    "rise": (3e-3, 30.0),
    "rise_noise": (0.3, 300.0),
    "top": (1e-2, 30.0),
    "wiggle": (0.5, 50.0),
    "noise": (1e-4, 3.0),
    "jump": (1e-3, 10.0),
    "trend": (1.0, 1e3),
    "late_noise": (1.0, 1e2),
    "bins": (12.0, 100.0),
    "val_rise": (1e-2, 1.0),
    "val_noise": (1e-3, 1.0),
}
LIMITS = (-0.5, 1.5)  # of all other signs, most of which are shares
FARTHEST = 4.0  # standard deviations that an input may be from its mean
DIGITS = 6  # inputs are rounded, so that the offset and scale of the losses change nothing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probabilities:
    """How probable it is that a learning rate was fine, too low or too high; they add up to 1.

    Args:
        fine: The learning rate was fine.
        too_low: It was too low, or decayed too early.
        too_high: It was too high.
        least_low: The probability from which on too low is said.
        least_high: The probability from which on too high is said.
    """

    fine: float
    too_low: float
    too_high: float
    least_low: float
    least_high: float


def inputs_of(signs: Signs, val_signs: ValSigns | None = None) -> dict[str, float]:
    """Return the inputs of the networks by name.

    Args:
        signs: What was measured on the training losses.
        val_signs: What was measured on the validation losses, None without them.

    Returns:
        The inputs: logarithms of some signs, the others cut to a common range.
    """
    measured = dataclasses.asdict(signs) | ({} if val_signs is None else dataclasses.asdict(val_signs))
    return {name: _input(name, value) for name, value in measured.items() if isinstance(value, (int, float))}


def _input(name: str, value: float) -> float:
    if name in LOGARITHMIC:
        low, high = LOGARITHMIC[name]
        return float(np.copysign(np.log(np.clip(abs(value), low, high) / low), value))
    return float(np.clip(value, *LIMITS))


def probabilities(
    signs: Signs, val_signs: ValSigns | None = None, models: Mapping[str, Any] | None = None
) -> Probabilities:
    """Return how probable each diagnosis is, among trainings like those that the networks were trained on.

    A network has one hidden layer, `softmax(out @ relu(hidden @ z))` with the standardized inputs z; the mean of three
    networks counts.

    Args:
        signs: What was measured on the training losses.
        val_signs: What was measured on the validation losses, None without them; then other networks answer.
        models: The networks, by default those of `diagnosis.json`.

    Returns:
        The probabilities.
    """
    model = (models or _stored_models())["losses" if val_signs is None else "losses and validation losses"]
    inputs = inputs_of(signs, val_signs)
    row = np.array([inputs[name] for name in model["inputs"]])
    z = (row - np.array(model["mean"])) / np.array(model["scale"])
    z = np.clip(np.round(z, DIGITS), -FARTHEST, FARTHEST)
    fine, low, high = np.mean([_softmax(_network(z, weights)) for weights in model["networks"]], axis=0)
    return Probabilities(
        fine=float(fine),
        too_low=float(low),
        too_high=float(high),
        least_low=model["least_low"],
        least_high=model["least_high"],
    )


def _network(z: Floats, weights: Mapping[str, Any]) -> Floats:
    hidden = np.maximum(np.array(weights["hidden"]) @ z + np.array(weights["hidden_bias"]), 0.0)
    scores: Floats = np.array(weights["out"]) @ hidden + np.array(weights["out_bias"])
    return scores


def _softmax(scores: Floats) -> Floats:
    shares = np.exp(scores - scores.max())
    normalized: Floats = shares / shares.sum()
    return normalized


@cache
def _stored_models() -> dict[str, Any]:
    models: dict[str, Any] = json.loads(files("lrfinder.curve").joinpath("diagnosis.json").read_text(encoding="utf-8"))
    return models
