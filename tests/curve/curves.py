"""Curves that the tests of `lrfinder.curve` share."""

import contextlib
import dataclasses
import math
import re

import numpy as np

from lrfinder.curve.curve import Context, Curve
from lrfinder.curve.landmarks import find_landmarks
from lrfinder.curve.rules import suggest
from lrfinder.curve.smoothing import smooth
from lrfinder.curve.sweep import Sweep, grid
from lrfinder.errors import NoSuggestionError


def measured(losses, lrs=None, *, smoothing="gaussian", stop_rule=True):
    """Drive a sweep with scripted losses and return its curve."""
    lrs = np.geomspace(1e-6, 1.0, len(losses)) if lrs is None else lrs
    sweep = Sweep(lrs) if stop_rule else Sweep(lrs, None)
    for loss in losses:
        if sweep.ask() is None:
            break
        sweep.tell(float(loss))
    return curve_of(sweep, smoothing)


def curve_of(sweep, smoothing="gaussian"):
    return Curve(
        lrs=sweep.lrs,
        losses=sweep.losses,
        smoothed=smooth(sweep.losses, smoothing),
        indices=sweep.indices,
        stop_reason=sweep.stop_reason,
        stop_lr=sweep.stop_lr,
    )


def healthy(num_points=100, noise=0.02, seed=0, *, steepest_at=1e-3, diverges_at=3e-2):
    """Losses that fall from 2.3 to 0.3, fastest at one rate, and rise from another one on."""
    lrs = np.geomspace(1e-6, 1.0, num_points)
    fall = 2 / (1 + (lrs / steepest_at) ** 1.5)
    rise = np.expm1(np.clip(10 * np.log10(lrs / diverges_at), 0, None))
    return 0.3 + fall + rise + noise * np.random.default_rng(seed).normal(size=num_points)


def decades(one, other):
    return abs(math.log10(one / other))


def nearest(curve, lr):
    return int(np.argmin(np.abs(np.log(curve.lrs / lr))))


def found_at(curve, context=Context()):  # noqa: B008 - frozen
    """Return the learning rates of `auto` and of the landmarks, those that there are."""
    found = dataclasses.asdict(find_landmarks(curve, context))
    with contextlib.suppress(NoSuggestionError):
        found["auto"] = suggest("auto", curve, context).lr
    return {name: lr for name, lr in found.items() if lr is not None}


def sgd_on_quadratic(
    seed,
    *,
    top=3.0,
    momentum=0.0,
    dimensions=1,
    gradient_noise=0.1,
    loss_noise=0.0,
    sampled=False,
    span=(-2, 2),
    num_iter=100,
):
    """Sweep SGD on a quadratic whose largest curvature is `top`, in units of the stability bound."""
    rng = np.random.default_rng(seed)
    curvatures = top * np.geomspace(1, 0.01, dimensions)
    bound = 2 * (1 + momentum) / top
    place, velocity = np.ones(dimensions), np.zeros(dimensions)
    sweep = Sweep(grid(bound * 10 ** span[0], bound * 10 ** span[1], num_iter))
    while (lr := sweep.ask()) is not None:
        noise = gradient_noise * rng.normal(size=dimensions)
        seen = place + noise if sampled else place  # a mini-batch's own minimum lies elsewhere
        loss = 0.5 * np.sum(curvatures * seen**2) + loss_noise * rng.normal()
        velocity = momentum * velocity + curvatures * (place + noise)
        place = place - lr * velocity
        sweep.tell(loss)
    return curve_of(sweep), bound


def product_in(reason):
    """Return the least and the greatest learning rate that a reason's numbers, which are rounded, can multiply to.

    The first number before a semicolon is a learning rate; those after "/" and "x" are its factors.
    """
    formula = reason.partition(";")[0]
    (first,) = re.findall(r"\d\.\de[+-]\d+", formula)[:1]
    low, high = (float(first) + sign * 0.05 * 10 ** float(first.partition("e")[2]) for sign in (-1, 1))
    for operator, printed in re.findall(r"([/x]) (\d+\.\d+)", formula):
        rounding = 0.5 * 10 ** -len(printed.partition(".")[2])
        bounds = float(printed) - rounding, float(printed) + rounding
        factors = bounds if operator == "x" else (1 / bounds[1], 1 / bounds[0])
        low, high = low * factors[0], high * factors[1]
    return low, high
