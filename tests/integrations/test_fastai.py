"""A range test of a fastai Learner: what it measures, that it leaves nothing behind, and that its result is used."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("fastai.basics", reason="needs fastai: pip install 'lrfinder[fastai]'")
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")]

from fastai.basics import (  # noqa: E402
    SGD,
    Adam,
    Callback,
    CrossEntropyLossFlat,
    DataLoaders,
    L,
    Learner,
    Lookahead,
    OptimWrapper,
    params,
    ranger,
)
from fastai.callback.fp16 import MixedPrecision, NonNativeMixedPrecision  # noqa: E402
from fastai.callback.mixup import MixUp  # noqa: E402
from fastai.callback.progress import ProgressCallback  # noqa: E402, F401 - adds Learner.no_bar
from fastai.callback.training import BnFreeze, GradientAccumulation, GradientClip  # noqa: E402

from lrfinder import ArgumentError, NoSuggestionError  # noqa: E402
from lrfinder.integrations.fastai import find_lr  # noqa: E402
from tests.fingerprint import Fingerprint, bits, differences, process_state  # noqa: E402

SWEEP = {"start_lr": 1e-5, "end_lr": 1e-1, "num_iter": 8, "progress": False}


class Watching(Callback):
    """Looks on at every batch, as loggers do."""

    def __init__(self):
        self.batches = 0

    def after_batch(self):
        self.batches += 1


class Penalty(Callback):
    """Belongs to the step: it changes the loss."""

    def after_loss(self):
        self.learn.loss_grad = self.loss_grad + 0.1 * sum(p.square().sum() for p in self.model.parameters())
        self.learn.loss = self.loss_grad.clone()


class CPUPrecision(MixedPrecision):
    """fastai's mixed precision knows CUDA only: the same on the CPU."""

    def before_fit(self):
        self.autocast = torch.autocast("cpu", torch.bfloat16)
        self.learn.scaler, self.scales = torch.amp.GradScaler("cpu", init_scale=1024.0), L()


def samples(count=96):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, generator=generator)
    return list(zip(x, x[:, :3].argmax(1), strict=True))


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


def two_groups(model):
    return L(params(model[:2]), params(model[4]))


def build(loaders="fastai", workers=0, **options):
    """Return a learner, the same at every call; fastai starts workers by default, which takes longer than a test."""
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 - the global stream is what fastai draws from
    torch.manual_seed(3)
    data = samples()
    if loaders == "fastai":
        dls = DataLoaders.from_dsets(data, data[:32], bs=16, num_workers=workers)
    else:
        x, y = (torch.stack(each) for each in zip(*data, strict=True))
        train = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
        dls = DataLoaders(train, DataLoader(TensorDataset(x, y), batch_size=32))
    cbs = [make() for make in options.pop("cbs", [])]
    return Learner(dls, network(), options.pop("loss_func", CrossEntropyLossFlat)(), cbs=cbs, **options)


def look(learner):
    parts = {"learner": vars(learner), "model": learner.model, "loss": vars(learner.loss_func)}
    parts |= {f"callback_{index}": vars(each) for index, each in enumerate(learner.cbs)}
    parts |= {f"loader_{index}": vars(each) for index, each in enumerate(learner.dls.loaders)}
    if learner.opt is not None:
        optimizer = learner.opt.opt if isinstance(learner.opt, Lookahead) else learner.opt
        parts |= {"optimizer": vars(learner.opt), "inner": vars(optimizer)}
        if isinstance(optimizer.hypers, L):  # of OptimWrapper they are made at each access
            parts |= {f"hypers_{index}": each for index, each in enumerate(optimizer.hypers)}
    return Fingerprint(**parts).values, process_state()


def outcome(learner, epochs=2, **options):
    """Train, and return final weights, optimizer state and recorded losses."""
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, **options)
    state = learner.opt.state_dict()["state"]
    entries = state if isinstance(state, list) else state.values()
    state = [value for entry in entries for value in entry.values() if isinstance(value, torch.Tensor)]
    tensors = [*learner.model.state_dict().values(), *state]
    return [bits(value) for value in tensors], [float(loss) for loss in learner.recorder.losses]


CASES = {
    "plain": {},
    "workers": {"workers": 2},
    "torch_loaders": {"loaders": "torch"},
    "sgd": {"opt_func": partial(SGD, mom=0.9), "wd": 0.01},
    "ranger": {"opt_func": ranger},
    "wrapped": {"opt_func": partial(OptimWrapper, opt=torch.optim.AdamW)},
    "groups": {"splitter": two_groups, "lr": slice(1e-4, 1e-2)},
    "wrapped_groups": {"splitter": two_groups, "opt_func": partial(OptimWrapper, opt=torch.optim.SGD), "lr": 1e-2},
    "clip": {"cbs": [partial(GradientClip, 0.1)]},
    "accumulation": {"cbs": [partial(GradientAccumulation, 32)]},
    "mixup": {"cbs": [MixUp]},
    "frozen_norm": {"cbs": [BnFreeze]},
    "precision": {"cbs": [CPUPrecision]},
    "precision_clip_accumulation": {
        "cbs": [CPUPrecision, partial(GradientAccumulation, 48), partial(GradientClip, 0.1)]
    },
    "watching": {"cbs": [Watching]},
    "penalty": {"cbs": [Penalty]},
}


@pytest.mark.parametrize("case", CASES)
def test_find_then_fit_equals_fit(case):
    expected = outcome(build(**CASES[case]))
    learner = build(**CASES[case])
    before = look(learner)

    result = find_lr(learner, **SWEEP)

    assert len(result.losses) == 8
    found = look(learner)
    assert differences(before[0], found[0]) == []
    assert differences(before[1], found[1]) == []
    assert outcome(learner) == expected


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("plain", {"val": True}),
        ("workers", {"val": True}),
        ("groups", {"refine": True, "total_steps": 60}),
        ("wrapped_groups", {"refine": True, "total_steps": 60}),
        ("precision", {"refine": True, "total_steps": 60}),
        ("precision", {"val": True}),
        ("ranger", {}),
    ],
)
def test_find_between_two_fits_with_every_phase_leaves_nothing_behind(case, options):
    twice = build(**CASES[case])
    outcome(twice)
    expected = outcome(twice)
    learner = build(**CASES[case])
    outcome(learner)
    before = look(learner)
    options = {**options}
    if options.pop("val", False):
        options["val_loader"] = learner.dls.valid

    find_lr(learner, num_iter=12, progress=False, **options)  # with a scout

    found = look(learner)
    assert differences(before[0], found[0]) == []
    assert differences(before[1], found[1]) == []
    assert outcome(learner) == expected


def test_a_frozen_body_stays_frozen():
    def make():
        learner = build(splitter=two_groups, opt_func=Adam)
        learner.freeze()
        return learner

    expected = outcome(make())
    learner = make()
    body = [bits(p) for p in learner.model[:2].parameters() if not p.requires_grad]
    assert body
    find_lr(learner, **SWEEP, snapshot_frozen=False)
    assert [bits(p) for p in learner.model[:2].parameters() if not p.requires_grad] == body
    assert outcome(learner) == expected


@pytest.mark.parametrize("case", ["plain", "torch_loaders", "clip", "mixup", "precision", "groups", "penalty"])
def test_losses_are_those_of_a_fit_at_the_same_learning_rates(case):
    class Recording(Callback):
        order = 50

        def before_fit(self):
            self.losses = []

        def before_batch(self):
            if self.training:
                lrs = [result.lrs[self.train_iter] * ratio for ratio in result.group_ratios]
                self.opt.set_hyper("lr", lrs)

        def after_batch(self):
            if self.training:
                self.losses.append(float(self.loss))

    result = find_lr(build(**CASES[case]), **{**SWEEP, "num_iter": 6})
    learner, recording = build(**CASES[case]), Recording()
    with learner.no_bar(), learner.no_logging():
        learner.fit(1, cbs=recording)
    assert result.losses.tolist() == recording.losses[:6]


def test_gradient_norms_are_those_before_clipping():
    plain = find_lr(build(), **SWEEP, grad_norms=True).grad_norms
    clipped = find_lr(build(cbs=[partial(GradientClip, 1e-3)]), **SWEEP, grad_norms=True).grad_norms
    scaled = find_lr(build(cbs=[CPUPrecision]), **SWEEP, grad_norms=True).grad_norms
    assert plain[0] > 0.01
    assert clipped[0] == plain[0]
    assert scaled[0] == pytest.approx(plain[0], rel=0.1)  # in bfloat16, and unscaled


def test_only_callbacks_of_the_step_take_part():
    learner = build(cbs=[Watching])
    seen = []

    def look_inside(index, lr, loss):
        seen.append(learner.watching.batches)

    find_lr(learner, **SWEEP, on_step=look_inside)
    assert seen == [0] * 8
    find_lr(learner, **SWEEP, on_step=look_inside, callbacks=[Watching])
    find_lr(learner, **SWEEP, on_step=look_inside, callbacks=[learner.watching])
    assert seen[8:] == [*range(1, 9)] * 2
    assert learner.watching.batches == 0


class Fault(Exception):
    pass


@pytest.mark.parametrize("case", ["plain", "workers", "precision_clip_accumulation", "mixup", "wrapped"])
@pytest.mark.parametrize("error", [Fault("in the middle"), KeyboardInterrupt()])
def test_a_fault_in_the_forward_pass_leaves_nothing_behind(case, error):
    expected = outcome(build(**CASES[case]))
    learner = build(**CASES[case])
    calls = 0

    def fail(module, inputs):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise error

    handle = learner.model.register_forward_pre_hook(fail)
    before, autocast = look(learner), torch.is_autocast_enabled("cpu")
    with pytest.raises(type(error)):
        find_lr(learner, **SWEEP)
    assert torch.is_autocast_enabled("cpu") == autocast
    assert differences(before[0], look(learner)[0]) == []
    handle.remove()
    assert outcome(learner) == expected


def test_the_suggestion_is_what_the_next_fit_uses():
    learner = build()
    result = find_lr(learner, n_epoch=3, num_iter=60, apply=True, progress=False)
    assert result.total_steps == 18
    assert learner.lr == result.suggestion.lr
    outcome(learner, 1)
    assert max(learner.recorder.lrs) == pytest.approx(result.suggestion.lr, rel=0.05)


def test_groups_keep_their_ratios_in_slice_and_in_the_next_fit():
    learner = build(splitter=two_groups, lr=slice(1e-4, 1e-2))
    result = find_lr(learner, num_iter=60, apply=True, progress=False)
    low, high = result.group_lrs()
    assert high / low == pytest.approx(100.0)
    assert learner.lr == [low, high]
    assert result.slice() == slice(low, high)
    outcome(learner, 1)
    other = build(splitter=two_groups)
    other.create_opt()
    other.opt.set_hyper("lr", result.slice())
    assert [hyper["lr"] for hyper in other.opt.hypers] == pytest.approx([low, high])


def test_applying_without_a_suggestion_is_an_error():
    learner = build()
    with pytest.raises(NoSuggestionError):
        find_lr(learner, start_lr=1e-9, end_lr=1e-8, num_iter=8, apply=True, progress=False)
    assert learner.lr == build().lr


def test_extra_state_and_snapshot_options_reach_the_snapshot():
    counter = nn.Linear(1, 1)
    learner = build()

    class Counting(Callback):
        def before_batch(self):
            counter.weight.data.add_(1)

    learner.add_cb(Counting())
    before = bits(counter.weight)
    find_lr(learner, **SWEEP, callbacks=[Counting], extra_state=[counter], snapshot_device="cpu", snapshot_frozen=False)
    assert bits(counter.weight) == before


def test_what_cannot_be_swept_is_refused(monkeypatch):
    learner = build()
    with pytest.raises(ArgumentError, match="must be a fastai Learner, got Sequential"):
        find_lr(learner.model)
    with pytest.raises(ArgumentError, match="must name callbacks of the learner"):
        find_lr(learner, callbacks=[Watching])
    with pytest.raises(ArgumentError, match="NonNativeMixedPrecision"):
        find_lr(build(cbs=[NonNativeMixedPrecision]))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ArgumentError, match="process group of 2"):
        find_lr(learner)


def test_a_tabular_learner():
    tabular = pytest.importorskip("fastai.tabular.all")
    pd = pytest.importorskip("pandas")

    def make():
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002 - the global stream is what fastai draws from
        torch.manual_seed(3)
        frame = pd.DataFrame(np.random.default_rng(1).normal(size=(120, 3)), columns=["a", "b", "c"])
        frame["kind"] = np.where(frame["a"] > 0, "up", "down")
        frame["y"] = frame["a"] + frame["b"]
        dls = tabular.TabularDataLoaders.from_df(
            frame, procs=[tabular.Categorify, tabular.Normalize], cat_names=["kind"], cont_names=["a", "b", "c"],
            y_names="y", valid_idx=list(range(20)), bs=16,
        )  # fmt: skip
        return tabular.tabular_learner(dls, layers=[8])

    expected = outcome(make())
    learner = make()
    before = process_state()
    find_lr(learner, **SWEEP)
    assert differences(before, process_state()) == []
    assert outcome(learner) == expected
