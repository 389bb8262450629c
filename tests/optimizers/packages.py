"""Optimizers of other packages, each with what it needs to train a tiny model."""

import importlib
import importlib.util
import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

__all__ = ["PACKAGES", "Case"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One optimizer.

    Args:
        make: Takes the model, returns the optimizer.
        bias: Whether the model has vectors; some optimizers take matrices only.
        options: Arguments of `LRFinder`.
        refused: What the `ArgumentError` says for an optimizer that cannot be swept, or only with a step of the user.
        unused_lr: Why its steps do not grow with the lr in its groups; "" where they do.
    """

    make: Callable[[nn.Module], Any]
    bias: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    unused_lr: str = ""


def of(kind, *arguments, **options) -> Callable[[nn.Module], Any]:
    return lambda model: kind(model.parameters(), *arguments, **options)


def matrices_and_vectors(kind, **options) -> Callable[[nn.Module], Any]:
    """Return how to make an optimizer like Muon, which wants to know the matrices."""

    def make(model):
        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() == 2], "use_muon": True},
            {"params": [p for p in parameters if p.dim() != 2], "use_muon": False},
        ]
        return kind(groups, **options)

    return make


def in_train_mode(kind) -> Callable[[nn.Module], Any]:
    """Return how to make an optimizer that has a mode, as those of schedulefree."""

    def make(model):
        optimizer = kind(model.parameters())
        if hasattr(optimizer, "train"):
            optimizer.train()
        return optimizer

    return make


def create_graph(loss):
    loss.backward(create_graph=True)


def pytorch_optimizer() -> dict[str, Case]:
    package = importlib.import_module("pytorch_optimizer")
    found = {
        kind.__name__: Case(make=of(kind))
        for kind in map(package.load_optimizer, package.get_supported_optimizers())
        if kind.__module__.startswith("pytorch_optimizer")
    }
    sgd = torch.optim.SGD
    for name in ("Muon", "AdaGO", "AdaMuon", "NorMuon", "MuonClip"):
        found[name] = Case(make=matrices_and_vectors(getattr(package, name)))
    for name in ("SAM", "LookSAM", "FriendlySAM"):
        found[name] = Case(make=of(getattr(package, name), sgd, lr=0.1))
    for name in ("AdaHessian", "SophiaH"):
        found[name] = Case(make=of(getattr(package, name)), options={"backward": create_graph})
        found[f"{name} without a graph"] = Case(make=of(getattr(package, name)), refused="create_graph=True")
    for name in ("LOMO", "AdaLOMO"):
        found[name] = Case(make=getattr(package, name), refused="use the method that it has for a step")
    found |= {
        "BSAM": Case(make=of(package.BSAM, num_data=32), unused_lr="its noise is larger than its steps"),
        "A2Grad": Case(make=of(package.A2Grad), refused="must hold a learning rate, got lr=None"),
        "AliG": Case(make=of(package.AliG), refused="must hold a learning rate, got lr=None"),
        "AdaFactor": Case(make=of(package.AdaFactor), unused_lr="relative_step"),
        "AdaFactor with its lr": Case(make=of(package.AdaFactor, relative_step=False)),
        "ApolloDQN": Case(make=of(package.ApolloDQN), unused_lr="500 steps of warm-up"),
        "ApolloDQN without warm-up": Case(make=of(package.ApolloDQN, warmup_steps=0)),
        "Ranger21": Case(make=of(package.Ranger21, num_iterations=100)),
        "AdamMini": Case(make=package.AdamMini),
        "WSAM": Case(make=lambda model: package.WSAM(model, model.parameters(), sgd, lr=0.1)),
        "SpectralSphere": Case(make=of(package.SpectralSphere), bias=False),
        "Lookahead": Case(make=lambda model: package.Lookahead(sgd(model.parameters(), lr=0.1))),
        "OrthoGrad": Case(make=lambda model: package.OrthoGrad(sgd(model.parameters(), lr=0.1))),
        "TRAC": Case(make=lambda model: package.TRAC(sgd(model.parameters(), lr=0.1))),
        "ScheduleFreeWrapper": Case(make=in_train_mode(lambda p: package.ScheduleFreeWrapper(sgd(p, lr=0.1)))),
    }
    left_out = {
        "DistributedMuon",  # needs a process group
        "DeMo",  # needs einops
    }
    return {name: case for name, case in found.items() if name not in left_out}


def schedulefree() -> dict[str, Case]:
    package = importlib.import_module("schedulefree")
    kinds = {name: kind for name, kind in vars(package).items() if inspect.isclass(kind) and "Wrapper" not in name}
    wrappers = {
        name: lambda params, kind=kind: kind(torch.optim.SGD(params, lr=0.1), momentum=0.9)
        for name, kind in vars(package).items()
        if "Wrapper" in name
    }
    return {name: Case(make=in_train_mode(kind)) for name, kind in (kinds | wrappers).items()}


def muon() -> dict[str, Case]:
    package = importlib.import_module("muon")
    return {
        "SingleDeviceMuon": Case(make=of(package.SingleDeviceMuon), bias=False),
        "SingleDeviceMuonWithAuxAdam": Case(make=matrices_and_vectors(package.SingleDeviceMuonWithAuxAdam)),
    }


def torchao() -> dict[str, Case]:
    package = importlib.import_module("torchao.optim")
    names = ("Adam8bit", "AdamW8bit", "Adam4bit", "AdamW4bit", "AdamFp8", "AdamWFp8")
    return {name: Case(make=of(getattr(package, name))) for name in names}


def lion_pytorch() -> dict[str, Case]:
    return {"Lion": Case(make=of(importlib.import_module("lion_pytorch").Lion))}


def prodigyopt() -> dict[str, Case]:
    return {"Prodigy": Case(make=of(importlib.import_module("prodigyopt").Prodigy))}


def optimi() -> dict[str, Case]:
    package = importlib.import_module("optimi")
    names = ("Adam", "AdamW", "Adan", "Lion", "RAdam", "Ranger", "SGD", "StableAdamW")
    return {name: Case(make=of(getattr(package, name), lr=1e-3)) for name in names} | {
        "AdamW, decoupled": Case(make=of(package.AdamW, lr=1e-3, decouple_lr=True, weight_decay=1e-4))
    }


def timm() -> dict[str, Case]:
    optim = _timm_optim()
    found = {}
    for name in optim.list_optimizers(exclude_filters=["bnb*", "fused*"]):  # they need a GPU
        info = optim.get_optimizer_info(name)
        momentum = {"momentum": 0.9} if info.has_momentum else {}
        backward = {"backward": create_graph} if info.second_order else {}
        kind = optim.get_optimizer_class(name, bind_defaults=True)
        found[name] = Case(make=of(kind, lr=0.01, **momentum), options=backward)
    found["lookahead"] = Case(make=lambda model: optim.Lookahead(torch.optim.SGD(model.parameters(), lr=0.1)))
    return found


def _timm_optim():
    """Return `timm.optim`; without torchvision, which all of timm needs, it is loaded on its own."""
    if importlib.util.find_spec("torchvision") is None and "timm" not in sys.modules:
        spec = importlib.util.find_spec("timm")
        if spec is None:
            raise ModuleNotFoundError(name="timm")
        stubs = {name: types.ModuleType(name) for name in ("timm", "timm.models")}
        stubs["timm"].__path__ = list(spec.submodule_search_locations)
        stubs["timm.models"].group_parameters = None
        sys.modules |= stubs
    return importlib.import_module("timm.optim")


PACKAGES = {
    "pytorch_optimizer": pytorch_optimizer,
    "timm": timm,
    "schedulefree": schedulefree,
    "muon": muon,
    "torchao": torchao,
    "lion_pytorch": lion_pytorch,
    "prodigyopt": prodigyopt,
    "optimi": optimi,
}
