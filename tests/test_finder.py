"""`LRFinder` as its users call it."""

import copy
import dataclasses
import inspect
import math
import multiprocessing
import os
import re
import warnings
from collections import OrderedDict, namedtuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from lrfinder import ArgumentError, LRFinder, LRFinderWarning, NoSuggestionError
from lrfinder.curve.stop_rule import StopReason
from lrfinder.curve.sweep import grid
from tests.fingerprint import Fingerprint, differences, process_state
from tests.notes import Notes
from tests.problems import SAM
from tests.test_options import BAD, names

quiet = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")
SHORT = {"start_lr": 1e-4, "end_lr": 1e-2, "num_iter": 6, "progress": False}


def net():
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))


def pairs(count=4, size=16):
    torch.manual_seed(1)
    return [(torch.randn(size, 3), torch.randint(0, 2, (size,))) for _ in range(count)]


def adam(model, lr=1e-3, **options):
    return torch.optim.Adam(model.parameters(), lr=lr, **options)


def regression(device="cpu"):
    """Return a training that learns, diverges, and warns of nothing: finder and loader."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = [(x, x.sum(1, keepdim=True)) for x in torch.randn(4, 64, 4)]
    return LRFinder(model, optimizer, nn.MSELoss()), batches


# The main job


def test_find_then_schedule_then_train(device):
    finder, batches = regression(device)
    result = finder.find(batches, total_steps=60, progress=False)
    assert finder.partial is None
    assert result.stop_reason in {StopReason.DIVERGED, StopReason.NONFINITE}
    assert 1e-2 < result.suggestion.lr < 1.0
    scheduler = result.scheduler("one_cycle", finder.optimizer)
    for step in range(60):
        x, y = (part.to(device) for part in batches[step % 4])
        finder.optimizer.zero_grad()
        loss = nn.functional.mse_loss(finder.model(x), y)
        loss.backward()
        finder.optimizer.step()
        scheduler.step()
    assert loss < 0.05


def test_a_healthy_find_warns_of_nothing_and_prints_nothing(capsys):
    finder, batches = regression()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = finder.find(batches, progress=False)
    assert result.warnings == ()
    assert capsys.readouterr() == ("", "")


def test_arrays_of_a_result_fit_together(device):
    finder, batches = regression(device)
    result = finder.find(batches, start_lr=1e-4, end_lr=100.0, num_iter=60, progress=False)
    assert len(result.lrs) == len(result.losses) == len(result.smoothed)
    assert np.array_equal(result.lrs, grid(1e-4, 100.0, 60)[: len(result.lrs)])
    assert result.steps >= len(result.lrs)
    assert result.seconds > 0
    assert result.suggestion.lr < result.landmarks.divergence


def test_what_is_known_of_the_training_is_kept():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8, nesterov=True)
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), accumulation_steps=2)
    with pytest.warns(LRFinderWarning):
        result = finder.find(pairs(), **SHORT, total_steps=np.int64(70), schedule="cosine", rule="fastai_steep")
    assert result.rule == "fastai_steep"
    assert dataclasses.asdict(result.context) == {
        "optimizer": "SGD", "momentum": 0.8, "total_steps": 70, "schedule": "cosine", "val": False,
        "batch_size": 16, "end_lr": 1e-2, "epoch_points": 2,
    }  # fmt: skip
    meta = dict(result.meta)
    assert set(meta.pop("versions")) == {"lrfinder", "torch", "numpy", "python"}
    assert meta == {
        "accumulation_steps": 2, "world_size": 1, "device": "cpu",
    }  # fmt: skip
    result.to_dict()


@quiet
@pytest.mark.parametrize(("accumulation_steps", "points"), [(1, 4), (2, 2), (3, None)])
def test_the_points_of_an_epoch_are_known_where_they_are_a_whole_number(accumulation_steps, points):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), accumulation_steps=accumulation_steps)
    assert finder.find(list(pairs())[:4], **SHORT).context.epoch_points == points


@quiet
@pytest.mark.parametrize(
    ("loader", "ends", "sentence"),
    [
        (list, {"start_lr": 1e-6, "end_lr": 1e-3}, "up to the last learning rate 1.0e-03. Raise end_lr, or leave it"),
        (iter, {"start_lr": 1e-6, "end_lr": 1e-3}, "^The curve has only 4 points. The data ended. Pass a DataLoader"),
    ],
)
def test_the_remedy_fits_what_was_given(loader, ends, sentence):
    finder, batches = regression()
    finder = LRFinder(finder.model, finder.optimizer, lambda outputs, targets: outputs.tanh().mean())  # never diverges
    found = finder.find(loader(batches), **ends, num_iter=30, progress=False).warnings
    assert any(re.search(sentence, each) for each in found), found


@quiet
def test_a_loss_that_cannot_diverge_is_told_in_the_reason_from_one_that_did_not_yet():
    finder, batches = regression()
    finder = LRFinder(finder.model, finder.optimizer, lambda outputs, targets: outputs.tanh().mean())
    result = finder.find(batches, progress=False)
    assert result.stop_reason is StopReason.FINISHED
    assert result.warnings == ()
    assert "held near its beginning" in result.suggestion.reason


def test_a_loss_that_is_never_finite_is_not_called_divergence():
    finder, batches = regression()
    finder = LRFinder(finder.model, finder.optimizer, lambda outputs, targets: outputs.sum() * float("nan"))
    with pytest.warns(LRFinderWarning, match=r"no points. The very first loss was NaN .* Look for the cause"):
        result = finder.find(batches, progress=False)
    assert str(result).splitlines()[-1].startswith("no suggestion: auto needs 5 points, the curve has 0. The very")


@quiet
def test_several_groups_are_swept_at_their_ratios():
    model = net()
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[3].parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    seen = Notes()

    def loss_fn(model, batch):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    result = LRFinder(model, optimizer, loss_fn=loss_fn).find(pairs(), **SHORT)
    assert np.array(seen)[:, 0] == pytest.approx(result.lrs)  # the larger group is the reference
    assert np.array(seen)[:, 1] == pytest.approx(10 * result.lrs)
    assert result.group_lrs(1e-3) == pytest.approx([1e-3, 1e-2])
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.1]


# Batches of every form


class Loss(nn.Module):
    """A model that returns its loss, from keywords or positions."""

    def __init__(self, output=lambda loss: loss):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.output = output

    def forward(self, x, labels):
        return self.output(nn.functional.cross_entropy(self.layer(x), labels))


class Two(nn.Module):
    def __init__(self, *, as_one):
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.as_one = as_one

    def forward(self, *inputs):
        assert len(inputs) == (1 if self.as_one else 2)
        return self.layer(torch.cat(inputs[0] if self.as_one else inputs, 1))


@dataclasses.dataclass(frozen=True)
class Batch:
    x: torch.Tensor
    y: torch.Tensor
    names: list


Pair = namedtuple("Pair", "x y")
CE = nn.CrossEntropyLoss()
FORMS = {
    "pairs": (net, CE, lambda x, y: (x, y)),
    "lists": (net, CE, lambda x, y: [x, y]),
    "named tuples": (net, CE, Pair),
    "two inputs as one": (lambda: Two(as_one=True), CE, lambda x, y: ((x, x), y)),
    "two inputs": (lambda: Two(as_one=False), CE, lambda x, y: (x, x, y)),
    "mapping, loss in a mapping": (
        lambda: Loss(lambda loss: {"loss": loss, "logits": 0}), None, lambda x, y: {"x": x, "labels": y},
    ),
    "mapping, loss as attribute": (
        lambda: Loss(lambda loss: namedtuple("Output", "loss logits")(loss, 0)),
        None,
        lambda x, y: OrderedDict(x=x, labels=y),
    ),
    "tuple, loss as tensor": (Loss, None, lambda x, y: (x, y)),
}  # fmt: skip


@quiet
@pytest.mark.parametrize("form", FORMS)
def test_batches_of_every_form_that_the_design_lists(form, device):
    make, criterion, wrap = FORMS[form]
    model = make().to(device)
    result = LRFinder(model, adam(model), criterion).find([wrap(x, y) for x, y in pairs()], **SHORT)
    assert len(result.lrs) == 6


@quiet
def test_anything_else_goes_through_loss_fn(device):
    model = net().to(device)

    def loss_fn(model, batch):
        assert batch.x.device.type == device.type
        assert batch.names == ["a"]
        return nn.functional.cross_entropy(model(batch.x), batch.y)

    batches = [Batch(x, y, ["a"]) for x, y in pairs()]
    assert len(LRFinder(model, adam(model), loss_fn=loss_fn).find(batches, **SHORT).lrs) == 6


@quiet
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_losses_are_those_of_training_by_hand(accumulation):
    torch.manual_seed(0)
    model = net()
    twin = copy.deepcopy(model)
    optimizer, other = adam(model), adam(twin)
    finder = LRFinder(model, optimizer, CE, accumulation_steps=accumulation, max_grad_norm=0.5)
    torch.manual_seed(5)
    result = finder.find(pairs(), **SHORT)
    torch.manual_seed(5)
    stream = iter(pairs() * 10)
    expected = []
    for lr in grid(1e-4, 1e-2, 6):
        other.param_groups[0]["lr"] = lr
        other.zero_grad()
        losses = []
        for _ in range(accumulation):
            x, y = next(stream)
            loss = CE(twin(x), y)
            losses.append(loss.item())
            (loss / accumulation).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        other.step()
        expected.append(np.mean(losses))
    assert result.losses == pytest.approx(expected, rel=1e-6)


@quiet
def test_validation_is_measured_after_the_step_on_fixed_batches():
    torch.manual_seed(0)
    model = net()
    twin = copy.deepcopy(model)
    optimizer, other = adam(model), adam(twin)
    held_out = pairs(12)[8:]
    torch.manual_seed(5)
    result = LRFinder(model, optimizer, CE).find(pairs(), **SHORT, val_loader=held_out, val_batches=3)
    torch.manual_seed(5)
    expected = []
    for lr, (x, y) in zip(grid(1e-4, 1e-2, 6), pairs() * 2, strict=False):
        other.param_groups[0]["lr"] = lr
        other.zero_grad()
        CE(twin(x), y).backward()
        other.step()
        twin.eval()
        with torch.no_grad():
            expected.append(np.mean([CE(twin(x), y).item() for x, y in held_out[:3]]))
        twin.train()
    assert result.losses == pytest.approx(expected, rel=1e-6)
    assert result.context.val


@quiet
def test_validation_does_not_change_which_batches_are_trained_on():
    data = TensorDataset(torch.arange(40.0).reshape(40, 1))
    seen = []

    def find(**arguments):
        torch.manual_seed(3)
        seen.clear()
        model = nn.Linear(1, 1)

        def loss_fn(model, batch):
            if model.training:
                seen.append(batch[0].flatten().tolist())
            return model(batch[0]).mean()

        finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn=loss_fn)
        finder.find(DataLoader(data, 8, shuffle=True), **SHORT, **arguments)
        return list(seen)

    assert find() == find(val_loader=DataLoader(data, 8, shuffle=True), val_batches=2)


# Loaders of every form


class Endless(IterableDataset):
    def __iter__(self):
        torch_state = torch.Generator().manual_seed(0)
        while True:
            yield torch.randn(3, generator=torch_state), 1


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.full((3,), float(index)) + 0.01 * torch.rand(3), index % 2


def four_of(sample):
    return sample[0].repeat(4, 1), torch.tensor([sample[1]] * 4)


LOADERS = {
    "list": pairs,
    "short list": lambda: pairs(1),
    "tuple": lambda: tuple(pairs()),
    "loader": lambda: DataLoader(Rows(), 8),
    "shuffling": lambda: DataLoader(Rows(), 8, shuffle=True),
    "one batch": lambda: DataLoader(Rows(), 40),
    "iterable": lambda: DataLoader(Endless(), 8),
    "batches from an iterable": lambda: DataLoader(Endless(), None, collate_fn=four_of),
    "workers": lambda: DataLoader(Rows(), 8, shuffle=True, num_workers=2),
}  # fmt: skip


@quiet
@pytest.mark.parametrize("name", LOADERS)
def test_loaders_of_every_form(name):
    loader = LOADERS[name]()
    model = net()
    before = set(multiprocessing.active_children())
    result = LRFinder(model, adam(model), CE).find(loader, **SHORT)
    assert len(result.lrs) == 6
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("kind", ["generator", "dali"])
def test_a_one_shot_iterator_is_consumed_with_a_warning(kind):
    class Dali:
        def __init__(self, batches):
            self.batches = iter(batches)

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.batches)

        def reset(self):
            raise AssertionError

    finder, batches = regression()
    source = (b for b in batches * 30)
    loader = source if kind == "generator" else Dali(source)
    with pytest.warns(LRFinderWarning, match=r"The loader is an iterator: the (\d+) batches .* are consumed") as w:
        result = finder.find(loader, progress=False)
    consumed = max(result.steps - len(result.lrs), len(result.lrs))
    assert f"the {consumed} batches" in str(w[0].message)
    assert len(list(source)) == 120 - consumed
    assert result.warnings[-1] == str(w[-1].message)


def test_a_one_shot_val_loader_is_consumed_with_a_warning():
    finder, batches = regression()
    source = iter(batches)
    with pytest.warns(LRFinderWarning, match="The val_loader is an iterator"):
        finder.find(batches, val_loader=source, val_batches=3, progress=False)
    assert len(list(source)) == 1


def stateful(workers):
    pytest.importorskip("torchdata", minversion="0.11")
    module = pytest.importorskip("torchdata.stateful_dataloader")
    generator = torch.Generator().manual_seed(3)
    return module.StatefulDataLoader(Rows(), batch_size=8, shuffle=True, num_workers=workers, generator=generator)


def plain(workers, **options):
    return DataLoader(Rows(), 8, shuffle=True, num_workers=workers, **options)


def persistent(workers):
    return plain(workers, persistent_workers=workers > 0)


@quiet
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # by torchdata
@pytest.mark.parametrize("make", [stateful, plain, persistent])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("read", [0, 2, 5], ids=["at the start", "in the middle of an epoch", "between epochs"])
def test_find_then_iterate_gives_the_bits_of_iterate(make, workers, read):
    def bits(find):
        torch.manual_seed(0)
        loader, model = make(workers), net()
        finder = LRFinder(model, adam(model), CE)
        iterator = iter(loader) if read else iter(())
        seen = [next(iterator) for _ in range(read)]
        if find:
            finder.find(loader, start_lr=1e-4, num_iter=6, progress=False)
        if read == 2:
            seen += list(iterator)
        seen += [batch for _ in range(2) for batch in loader]
        seen.append((torch.rand(3), torch.zeros(())))
        state = loader.state_dict() if hasattr(loader, "state_dict") else None
        return [part.tolist() for batch in seen for part in batch], str(state)

    assert bits(find=True) == bits(find=False)


@quiet
@pytest.mark.parametrize("fault", [None, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("persistent", [False, True])
def test_worker_processes_are_gone_afterwards(fault, persistent):
    pids = Notes()

    def loss_fn(model, batch):
        for child in multiprocessing.active_children():
            pids.append(child.pid)
        if fault is not None and len(calls) == 3:
            raise fault
        calls.append(1)
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    calls, model = [], net()
    already = {child.pid for child in multiprocessing.active_children()}
    finder = LRFinder(model, adam(model), loss_fn=loss_fn)
    loader = DataLoader(Rows(), 8, num_workers=2, persistent_workers=persistent)
    if fault is None:
        finder.find(loader, **SHORT)
    else:
        with pytest.raises(fault):
            finder.find(loader, **SHORT)
    started = set(pids) - already
    assert len(started) >= 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class Epochs(torch.utils.data.Sampler):
    """Like DistributedSampler: another order for each epoch, told from outside."""

    def __init__(self):
        self.epoch = 7

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 16

    def __iter__(self):
        return iter(torch.randperm(16, generator=torch.Generator().manual_seed(self.epoch)).tolist())


@quiet
def test_epochs_are_set_on_starting_over_and_put_back():
    sampler, model, epochs = Epochs(), net(), []
    loader = DataLoader(Rows(), 8, sampler=sampler)
    LRFinder(model, adam(model), CE).find(loader, **SHORT, on_step=lambda *_: epochs.append(sampler.epoch))
    assert epochs == [7, 7, 8, 8, 9, 9]
    assert sampler.epoch == 7


# Points in order


@quiet
def test_on_step_is_called_once_for_each_point_in_order_while_the_sweep_runs():
    model, points, lengths = net(), [], []
    result = LRFinder(model, adam(model), CE).find(
        pairs(), **SHORT, on_step=lambda *p: (points.append(p), lengths.append(len(points)))
    )
    assert points == list(zip(range(6), result.lrs, result.losses, strict=True))
    assert all(type(i) is int and type(lr) is float and type(loss) is float for i, lr, loss in points)


@quiet
@pytest.mark.parametrize("where", ["loss_fn", "loader", "on_step"])
@pytest.mark.parametrize("at", [0, 2, 5])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_after_an_error_the_points_so_far_are_in_partial(where, at, kind):
    error = kind("fault")
    armed = True

    def fail(here, count):
        if armed and here == where and count == at:
            raise error

    class Batches:
        def __iter__(self):
            for i, batch in enumerate(pairs(6)):
                fail("loader", i)
                yield batch

    calls = []

    def loss_fn(model, batch):
        fail("loss_fn", len(calls))
        calls.append(1)
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    model = net()
    finder = LRFinder(model, adam(model), loss_fn=loss_fn)
    with pytest.raises(kind) as caught:
        finder.find(Batches(), **SHORT, on_step=lambda i, lr, loss: fail("on_step", i))
    assert caught.value is error
    points = at + 1 if where == "on_step" else at
    assert len(finder.partial.losses) == points
    assert np.array_equal(finder.partial.lrs, grid(1e-4, 1e-2, 6)[:points])
    assert "interrupted" in str(finder.partial) or points == 6
    with pytest.raises(NoSuggestionError):
        finder.partial.suggest("auto")
    armed = False
    finder.find(pairs(), **SHORT)
    assert finder.partial is None


def test_the_partial_result_of_a_scout_is_the_scouts():
    calls = []

    def loss_fn(model, batch):
        calls.append(1)
        if len(calls) == 4:
            raise OSError("mine")
        return model(batch[0]).sum()

    model = net()
    finder = LRFinder(model, adam(model), loss_fn=loss_fn)
    with pytest.raises(OSError, match="mine"):
        finder.find(pairs(), progress=False)
    assert len(finder.partial.lrs) == 3
    assert finder.partial.steps == 3


def test_an_error_before_the_first_step_leaves_no_old_partial():
    model = net()
    finder = LRFinder(model, adam(model), CE)
    finder.partial = "old"
    with pytest.raises(ArgumentError):
        finder.find(pairs(), num_iter=0)
    assert finder.partial is None


# Losses that are not finite


@pytest.mark.parametrize("at", [0, 3, 5])
def test_nan_ends_the_sweep_and_poisons_nothing(at):
    model, calls = net(), []
    before = copy.deepcopy(model.state_dict())

    def loss_fn(model, batch):
        calls.append(1)
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        return loss * (math.nan if len(calls) == at + 1 else 1)

    with pytest.warns(LRFinderWarning):
        result = LRFinder(model, adam(model), loss_fn=loss_fn).find(pairs(), **SHORT)
    assert result.stop_reason is StopReason.NONFINITE
    assert len(result.lrs) == at
    assert result.stop_lr == grid(1e-4, 1e-2, 6)[at]
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


@quiet
def test_warning_quotes_what_the_users_code_raised_on_an_unread_nan(monkeypatch):
    from functools import partial

    from lrfinder import search

    monkeypatch.setattr(search, "LossQueue", partial(search.LossQueue, lag=3))
    model, calls = net(), []

    def loss_fn(model, batch):
        calls.append(1)
        if len(calls) == 5:
            raise FloatingPointError("my own check")
        return nn.functional.cross_entropy(model(batch[0]), batch[1]) * (math.nan if len(calls) == 4 else 1)

    result = LRFinder(model, adam(model), loss_fn=loss_fn).find(pairs(), **SHORT)
    assert result.warnings[-1].startswith("Your code raised FloatingPointError (my own check) on a loss")
    assert result.stop_reason is StopReason.NONFINITE
    assert len(result.lrs) == 3


# Warnings


def test_warnings_point_at_the_callers_line_once_each():
    model = net()
    finder = LRFinder(model, adam(model), CE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        line = inspect.currentframe().f_lineno + 1
        result = finder.find(pairs(), **SHORT)
    assert len(result.warnings) >= 1
    assert [str(w.message) for w in caught] == list(result.warnings)
    assert len(set(result.warnings)) == len(result.warnings)
    assert all(w.category is LRFinderWarning for w in caught)
    assert {(w.filename, w.lineno) for w in caught} == {(__file__, line)}


def test_a_warning_that_is_made_an_error_does_not_lose_the_curve():
    model = net()
    finder = LRFinder(model, adam(model), CE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LRFinderWarning):
            finder.find(pairs(), **SHORT)
    assert len(finder.partial.lrs) == 6


def test_warning_that_adafactor_caps_its_lr():
    model = net()
    finder = LRFinder(model, torch.optim.Adafactor(model.parameters()), CE)
    with pytest.warns(LRFinderWarning) as caught:
        finder.find(pairs(), start_lr=1e-3, end_lr=10.0, num_iter=20, progress=False)
    told = [str(w.message) for w in caught if "Adafactor" in str(w.message)]
    assert len(told) == 1
    lrs = grid(1e-3, 10.0, 20)
    lowest = lrs[lrs * np.sqrt(np.arange(1, 21)) > 1].min()
    assert f"above {lowest:.1e}" in told[0]


# Mixed precision


@quiet
def test_a_scaler_that_starts_too_high_is_retried_at_the_first_lr(device):
    model = net().to(device)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**127)
    finder = LRFinder(model, adam(model), lambda o, t: 1e3 * nn.functional.cross_entropy(o, t), grad_scaler=scaler)
    result = finder.find(pairs(), **SHORT)
    assert len(result.lrs) == 6
    assert result.steps > 6
    assert scaler.get_scale() == 2.0**127


@quiet
@pytest.mark.parametrize("autocast", [torch.bfloat16, {"dtype": torch.bfloat16}])
def test_autocast_and_scaler_together(autocast, device):
    model = net().to(device)
    finder = LRFinder(
        model,
        adam(model),
        CE,
        autocast=autocast,
        grad_scaler=torch.amp.GradScaler(device.type, init_scale=4.0),
        accumulation_steps=2,
        max_grad_norm=1.0,
    )
    assert len(finder.find(pairs(), **SHORT).lrs) == 6


@quiet
def test_lbfgs_reports_the_first_loss_of_its_closure():
    model = nn.Linear(3, 2)
    expected = [CE(model(pairs()[0][0]), pairs()[0][1]).item()]
    result = LRFinder(model, torch.optim.LBFGS(model.parameters()), CE).find(pairs(), **SHORT)
    assert result.losses[0] == pytest.approx(expected[0])


# Bad input changes nothing


class Setup:
    """A training in its midst: gradients, history, a scheduler; and a look at all of it."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = net()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 5)
        self.loader = DataLoader(Rows(), 8, shuffle=True, generator=torch.Generator().manual_seed(4))
        for x, y in self.loader:
            CE(self.model(x), y).backward()
            self.optimizer.step()
        self.before = self.look()

    def look(self):
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "loader": self.loader}
        return Fingerprint(**parts), process_state()

    def assert_unchanged(self):
        (found, process), (before, process_before) = self.look(), self.before
        assert differences(before.values, found.values) == []
        assert differences(process_before, process) == []


@pytest.mark.parametrize(("given", "message"), BAD, ids=names)
def test_a_bad_argument_of_find_changes_nothing(given, message):
    setup = Setup()
    with pytest.raises(ArgumentError, match=message):
        LRFinder(setup.model, setup.optimizer, CE).find(setup.loader, progress=False, **given)
    setup.assert_unchanged()


def unit(model, batch):
    return model(batch[0]).mean()


BAD_LOADERS = {
    "none": (None, r"loader must be an iterable of batches, got NoneType"),
    "tensor": (torch.ones(4, 3), r"loader must be an iterable of batches, got Tensor: its items are rows"),
    "data set": (Rows(), r"loader must be an iterable of batches, got Rows: its items are samples"),
    "dict": ({"train": []}, r"loader must be an iterable of batches, got dict"),
    "function": (pairs, r"loader must be an iterable of batches, got function"),
    "empty list": ([], r"loader must give at least one batch, got an empty list"),
    "empty loader": (DataLoader([]), r"at least one batch, got an empty DataLoader; .*drop_last"),
    "all dropped": (DataLoader(Rows(), 64, drop_last=True), r"got an empty DataLoader; .*drop_last"),
    "empty iterator": (iter([]), r"loader must give at least one batch, got an empty list_iterator"),
    "mappings": ([{"x": 1}], r"LRFinder\(criterion=...\) needs \(inputs, targets\) batches, got a dict; .*loss_fn"),
    "inputs alone": ([torch.ones(4, 3)], r"LRFinder\(criterion=...\) needs \(inputs, targets\) batches, got a Tensor"),
}


@pytest.mark.parametrize("name", BAD_LOADERS)
@pytest.mark.parametrize("scout", [False, True])
def test_a_bad_loader_changes_nothing(name, scout):
    loader, message = BAD_LOADERS[name]
    setup = Setup()
    with pytest.raises(ArgumentError, match=message):
        LRFinder(setup.model, setup.optimizer, CE).find(loader, **({"progress": False} if scout else SHORT))
    setup.assert_unchanged()


@pytest.mark.parametrize("val_loader", [[], iter([]), 3, torch.ones(3)])
def test_a_bad_val_loader_changes_nothing(val_loader):
    setup = Setup()
    with pytest.raises(ArgumentError, match="val_loader must "):
        LRFinder(setup.model, setup.optimizer, CE).find(setup.loader, **SHORT, val_loader=val_loader)
    setup.assert_unchanged()


@pytest.mark.parametrize("loader", [pairs(), iter(pairs()), DataLoader(Rows(), 8)])
def test_repeats_in_a_fixed_order_are_an_error(loader):
    setup = Setup()
    with pytest.raises(ArgumentError, match=r"find\(repeats=2\) .*the loader must shuffle, got a .*shuffle=True"):
        LRFinder(setup.model, setup.optimizer, CE).find(loader, repeats=2, progress=False)
    setup.assert_unchanged()


def test_validation_of_a_users_step_is_refused():
    setup = Setup()
    finder = LRFinder(setup.model, setup.optimizer, step=lambda batch: 1.0)
    with pytest.raises(ArgumentError, match=r"find\(val_loader=...\) needs .* LRFinder\(step=...\) hides; use loss_fn"):
        finder.find(setup.loader, val_loader=[1])
    setup.assert_unchanged()


BAD_LOSSES = {
    "no scalar": (lambda m, b: m(b[0]), r"must return a scalar loss, got a tensor of shape \(8, 2\)"),
    "detached": (lambda m, b: m(b[0]).mean().detach(), "must depend on trainable parameters, got a loss without"),
    "a number": (lambda m, b: m(b[0]).mean().item(), r"loss_fn\(model, batch\) must return a scalar tensor, got float"),
    "nothing": (lambda m, b: None, r"loss_fn returned None.*at least one batch in a thousand must have one"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_LOSSES)
def test_a_bad_loss_changes_nothing(name):
    loss_fn, message = BAD_LOSSES[name]
    setup = Setup()
    with pytest.raises(ArgumentError, match=message):
        LRFinder(setup.model, setup.optimizer, loss_fn=loss_fn).find(setup.loader, **SHORT)
    setup.assert_unchanged()


def test_inference_mode_is_refused_before_anything_is_read():
    model = net()
    optimizer, criterion = adam(model), nn.MSELoss()
    with torch.inference_mode(), pytest.raises(ArgumentError, match=r"find\(...\) trains .* torch.inference_mode\(\)"):
        LRFinder(model, optimizer, criterion).find(iter([]))


def test_the_repr_names_the_parts():
    model = net()
    optimizer, criterion = adam(model), nn.MSELoss()
    assert repr(LRFinder(model, optimizer, criterion)) == "LRFinder(Sequential, Adam, criterion=MSELoss)"
    assert repr(LRFinder(model, optimizer)) == "LRFinder(Sequential, Adam)"

    def train(batch):
        pass

    assert repr(LRFinder(model, optimizer, step=train)) == "LRFinder(Sequential, Adam, step=train)"


def test_no_gradients_anywhere_is_found_out_too():
    setup = Setup()
    with torch.no_grad(), pytest.raises(ArgumentError, match=r"computed under torch.no_grad\(\)"):
        LRFinder(setup.model, setup.optimizer, CE).find(setup.loader, **SHORT)
    setup.assert_unchanged()


def test_sparse_gradients_with_clipping_change_nothing():
    model = nn.Embedding(5, 2, sparse=True)
    before = model.weight.detach().clone()
    optimizer = torch.optim.SparseAdam(model.parameters())
    finder = LRFinder(model, optimizer, loss_fn=lambda m, b: m(b).sum(), max_grad_norm=1.0)
    with pytest.raises(ArgumentError, match=r"max_grad_norm=1.0\) cannot clip sparse gradients"):
        finder.find([torch.tensor([1, 2])], **SHORT)
    assert torch.equal(model.weight, before)
    assert not optimizer.state
    assert model.weight.grad is None


def frozen():
    return net().requires_grad_(False)


def lazy():
    return nn.Sequential(nn.LazyLinear(3))


MODEL = net()
SCALER = torch.amp.GradScaler("cpu")
HEAD = nn.Sequential(net().requires_grad_(False), nn.Linear(2, 2))


def without_lr(model):
    optimizer = adam(model)
    optimizer.param_groups[0]["lr"] = None
    return optimizer


BAD_SETUPS = {
    "no module": ((lambda x: x, adam(MODEL)), {}, r"LRFinder\(model=...\) must be a torch.nn.Module, got function"),
    "swapped": ((adam(MODEL), MODEL), {}, r"LRFinder\(model=...\) must be a torch.nn.Module, got Adam"),
    "a class": ((nn.Linear, adam(MODEL)), {}, r"model=...\) must be a torch.nn.Module, got type"),
    "frozen": ((frozen(), adam(MODEL)), {}, r"model=...\) must have trainable parameters, .*requires_grad_\(True\)"),
    "no parameters": ((nn.ReLU(), adam(MODEL)), {}, r"model=...\) must have trainable parameters"),
    "lazy": ((lazy(), adam(MODEL)), {}, r"model=...\) must be initialised, got the lazy module '0' .* run one batch"),
    "no optimizer": ((MODEL, None), {}, r"optimizer=...\) must be a torch optimizer, got NoneType"),
    "optimizer's class": ((MODEL, torch.optim.SGD), {}, r"optimizer=...\) must be a torch optimizer, got type"),
    "scheduler": (
        (MODEL, torch.optim.lr_scheduler.StepLR(adam(MODEL), 1)), {}, r"optimizer=...\) must .* optimizer, got StepLR"),
    "foreign optimizer": ((MODEL, adam(net())), {}, r"optimizer=...\) must hold parameters of the model"),
    "optimizer of frozen": ((HEAD, adam(HEAD[0])), {}, r"optimizer=...\) must hold trainable .* only frozen"),
    "rprop": ((MODEL, torch.optim.Rprop(MODEL.parameters())), {}, r"optimizer=...\) must read .*, got Rprop"),
    "criterion's class": ((MODEL, adam(MODEL), nn.CrossEntropyLoss), {}, r"criterion=...\) .* make an object"),
    "criterion's name": ((MODEL, adam(MODEL), "cross_entropy"), {}, r"criterion=...\) must be callable, got str"),
    "loss_fn's value": ((MODEL, adam(MODEL)), {"loss_fn": torch.ones(())}, r"loss_fn=...\) must .* got Tensor"),
    "criterion and loss_fn": ((MODEL, adam(MODEL), CE), {"loss_fn": unit}, r"one of .*, got criterion and loss_fn"),
    "criterion and step": ((MODEL, adam(MODEL), CE), {"step": unit}, r"one of .*, got criterion and step"),
    "all three": ((MODEL, adam(MODEL), CE), {"step": unit, "loss_fn": unit}, r"got criterion and loss_fn and step"),
    "step, autocast": ((MODEL, adam(MODEL)), {"step": unit, "autocast": torch.bfloat16}, r"so autocast would have no"),
    "step, scaler": ((MODEL, adam(MODEL)), {"step": unit, "grad_scaler": SCALER}, r"so grad_scaler"),
    "step, accumulation": ((MODEL, adam(MODEL)), {"step": unit, "accumulation_steps": 2}, r"so accumulation_steps"),
    "step, clipping": ((MODEL, adam(MODEL)), {"step": unit, "max_grad_norm": 1.0}, r"so max_grad_norm would have no"),
    "step, backward": ((MODEL, adam(MODEL)), {"step": unit, "backward": unit}, r"got step and backward; do it inside"),
    "step, closure": ((MODEL, adam(MODEL)), {"step": unit, "closure": True}, r"so closure would have no effect"),
    "closure's function": ((MODEL, adam(MODEL), CE), {"closure": unit}, r"closure=...\) must be True, .* got function"),
    "scaler, closure": ((MODEL, adam(MODEL), CE), {"closure": True, "grad_scaler": SCALER}, r"closure=True\) does not"),
    "scaler, two passes": (
        (MODEL, SAM(MODEL.parameters(), torch.optim.SGD, lr=0.1), CE), {"grad_scaler": SCALER},
        r"grad_scaler=...\) does not work with optimizers that call a closure, got SAM"),
    "mock": ((MODEL, Mock(), CE), {}, r"optimizer=...\) must be a torch optimizer, got Mock"),
    "no lr": ((MODEL, without_lr(MODEL), CE), {}, r"param_groups\[0\] must hold a learning rate, got lr=None"),
    "maximize": ((MODEL, adam(MODEL, maximize=True), CE), {}, r"must minimise the loss, .*\[0\]; .*negative"),
    "scaler with a closure": (
        (MODEL, torch.optim.LBFGS(MODEL.parameters()), CE), {"grad_scaler": torch.amp.GradScaler("cpu")},
        r"grad_scaler=...\) does not work with optimizers that call a closure, got LBFGS"),
    "scaler's value": ((MODEL, adam(MODEL), CE), {"grad_scaler": True}, r"grad_scaler=...\) must be .*, got bool"),
    "accumulation": ((MODEL, adam(MODEL), CE), {"accumulation_steps": 0}, r"accumulation_steps=...\) must .* got 0"),
    "half accumulation": ((MODEL, adam(MODEL), CE), {"accumulation_steps": 1.5}, r"accumulation_steps=.* got 1.5"),
    "clipping": ((MODEL, adam(MODEL), CE), {"max_grad_norm": 0.0}, r"max_grad_norm=...\) must be a positive.* got 0.0"),
    "clipping's flag": ((MODEL, adam(MODEL), CE), {"max_grad_norm": True}, r"max_grad_norm=...\) must .* got True"),
    "autocast's flag": ((MODEL, adam(MODEL), CE), {"autocast": True}, r"autocast=...\) must be .* got True"),
    "autocast's name": ((MODEL, adam(MODEL), CE), {"autocast": "bf16"}, r"autocast=...\) must be .* got 'bf16'"),
    "autocast's int": ((MODEL, adam(MODEL), CE), {"autocast": torch.int8}, r"autocast=...\) .* got torch.int8"),
    "backward": ((MODEL, adam(MODEL), CE), {"backward": 1.0}, r"backward=...\) must be callable, got float"),
    "bare extra state": ((MODEL, adam(MODEL), CE), {"extra_state": net()}, r"extra_state=...\) must be .*\[...\]"),
    "no extra state": ((MODEL, adam(MODEL), CE), {"extra_state": None}, r"extra_state=...\) must be a list"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SETUPS)
def test_parts_that_do_not_fit_together_are_found_out_at_once(name):
    arguments, options, message = BAD_SETUPS[name]
    with pytest.raises(ArgumentError, match=message):
        LRFinder(*arguments, **options)


def test_extra_state_without_a_state_is_found_out_before_the_first_step():
    setup = Setup()
    finder = LRFinder(setup.model, setup.optimizer, CE, extra_state=[object()])
    with pytest.raises(ArgumentError, match="`extra_state` takes modules, optimizers, generators"):
        finder.find(setup.loader, **SHORT)
    setup.assert_unchanged()


def test_the_setup_is_checked_again_at_find():
    model = net()
    finder = LRFinder(model, adam(model), CE)
    model.requires_grad_(False)
    with pytest.raises(ArgumentError, match="must have trainable parameters"):
        finder.find(pairs(), **SHORT)


def test_a_second_optimizer_in_step_is_named():
    hidden = Notes(adam(net()))
    setup = Setup()

    def step(batch):
        hidden[0].step()
        return 1.0

    with pytest.raises(Exception, match=r"An optimizer, Adam .* Pass it with extra_state"):
        LRFinder(setup.model, setup.optimizer, step=step).find(setup.loader, **SHORT)
    setup.assert_unchanged()
