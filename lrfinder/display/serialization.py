"""The parts of a result as plain JSON, and back without loss."""

import json
import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrfinder.curve import Context, Curve, Landmarks, StopReason, Suggestion
from lrfinder.errors import ArgumentError
from lrfinder.version import __version__

__all__ = ["SCHEMA", "plain_fields", "read_fields", "read_json", "versions", "write_json"]

SCHEMA = 2  # of the JSON that RangeTestResult.save writes; version 0.1 wrote 1


def plain_fields(held: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result holds as plain numbers, strings, lists and dictionaries.

    Args:
        held: The fields of the result, with its suggestions and landmarks.

    Returns:
        What `read_fields` reads.
    """
    return {
        "schema": SCHEMA,
        **_plain_curve(held["curve"]),
        "context": asdict(held["context"]),
        "rule": held["rule"],
        "group_ratios": list(held["group_ratios"]),
        "fixed_lrs": list(held["fixed_lrs"]),
        "group_names": list(held["group_names"]),
        "initial_lrs": list(held["initial_lrs"]),
        "suggestions": {rule: _plain_suggestion(found) for rule, found in held["suggestions"].items()},
        "landmarks": asdict(held["landmarks"]),
        "spreads": {rule: list(spread) for rule, spread in held["spreads"].items()},
        "steps": held["steps"],
        "seconds": held["seconds"],
        "warnings": list(held["warnings"]),
        "probes": [[lr, score if np.isfinite(score) else None] for lr, score in held["probes"]],
        "next_step": held["next_step"],
        "meta": dict(held["meta"]),
    }


def _plain_suggestion(found: Suggestion) -> dict[str, Any]:
    return {**asdict(found), "spread": None if found.spread is None else list(found.spread)}


def _plain_curve(curve: Curve) -> dict[str, Any]:
    return {
        "lrs": curve.lrs.tolist(),
        "losses": curve.losses.tolist(),
        "smoothed": curve.smoothed.tolist(),
        "indices": curve.indices.tolist(),
        "stop_reason": None if curve.stop_reason is None else curve.stop_reason.value,
        "stop_lr": curve.stop_lr,
        "grad_norms": None if curve.grad_norms is None else [_finite_or_none(norm) for norm in curve.grad_norms],
    }


def _finite_or_none(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write a dictionary to a file, as JSON that every reader accepts (no NaN).

    Args:
        path: The file; it is overwritten.
        data: Plain numbers, strings, lists and dictionaries.
    """
    text = json.dumps(data, indent=1, allow_nan=False)  # before the file is opened: an error leaves it as it was
    Path(path).write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """Read a file that holds JSON.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        ArgumentError: It is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # no text, or no JSON
        raise ArgumentError(f"RangeTestResult.load(path={str(path)!r}) must name a JSON file: {error}.") from error


def read_fields(data: Any, call: str) -> dict[str, Any]:
    """Return the fields of the result that `RangeTestResult.to_dict` described.

    Args:
        data: The dictionary, as it came out of JSON.
        call: Call and argument, for messages.

    Returns:
        The arguments of `RangeTestResult`.

    Raises:
        ArgumentError: It is something else, of an unknown schema, or incomplete.
    """
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(data, dict) or schema not in {1, SCHEMA}:
        raise ArgumentError(
            f"{call} reads the schemas 1 and {SCHEMA}, got schema={schema!r}; "
            "pass a file that RangeTestResult.save wrote, or update lrfinder."
        )
    try:
        return _fields(_from_version_0_1(data) if schema == 1 else data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ArgumentError(
            f"{call} must name a file that RangeTestResult.save wrote, got one that lacks something or was changed "
            f"({type(error).__name__}: {error})."
        ) from error


def _from_version_0_1(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data in the present form: landmarks were suggestions, a rule had another name, fields were missing."""
    names = [field.name for field in fields(Landmarks)]
    given = {_renamed(rule): {**found, "rule": _renamed(rule)} for rule, found in data["suggestions"].items()}
    context = {field.name: data["context"][field.name] for field in fields(Context) if field.name in data["context"]}
    meta = dict(data["meta"])
    return {
        **data,
        "context": context,
        "rule": _renamed(data["rule"]),
        "landmarks": {name: given[name]["lr"] if name in given else None for name in names},
        # What was asked for as advice stays advice.
        "suggestions": {rule: found for rule, found in given.items() if rule not in names or rule == data["rule"]},
        "spreads": {_renamed(rule): spread for rule, spread in data["spreads"].items() if rule not in names},
        "group_names": [],
        "initial_lrs": [],
        "next_step": meta.pop("use", None),
        "meta": meta,
    }


def _renamed(rule: str) -> str:
    return "fastai_valley" if rule == "valley" else rule


def _fields(data: Mapping[str, Any]) -> dict[str, Any]:
    suggestions = {rule: _suggestion(found) for rule, found in data["suggestions"].items()}
    return {
        "curve": _curve(data),
        "context": Context(**data["context"]),
        "rule": data["rule"],
        "group_ratios": tuple(data["group_ratios"]),
        "fixed_lrs": tuple(data.get("fixed_lrs", ())),
        "group_names": tuple(data["group_names"]),
        "initial_lrs": tuple(data["initial_lrs"]),
        "steps": data["steps"],
        "seconds": data["seconds"],
        "warnings": tuple(data["warnings"]),
        "spreads": {rule: (low, high) for rule, (low, high) in data["spreads"].items()},
        "probes": tuple((lr, float("inf") if score is None else score) for lr, score in data["probes"]),
        "refined": suggestions.get("refine"),
        "next_step": data["next_step"],
        "meta": data["meta"],
        "stored_suggestions": suggestions,
        "stored_landmarks": Landmarks(**data["landmarks"]),
    }


def _curve(data: Mapping[str, Any]) -> Curve:
    reason, norms = data["stop_reason"], data.get("grad_norms")
    return Curve(
        lrs=np.array(data["lrs"], dtype=float),
        losses=np.array(data["losses"], dtype=float),
        smoothed=np.array(data["smoothed"], dtype=float),
        indices=np.array(data["indices"], dtype=int),
        stop_reason=None if reason is None else StopReason(reason),
        stop_lr=data["stop_lr"],
        grad_norms=None if norms is None else np.array([np.inf if norm is None else norm for norm in norms]),
    )


def _suggestion(data: Mapping[str, Any]) -> Suggestion:
    spread = data["spread"]
    return Suggestion(**{**data, "spread": None if spread is None else (spread[0], spread[1])})


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on.

    Returns:
        The version by the name of the package.
    """
    return {
        "lrfinder": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
