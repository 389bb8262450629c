"""The drop-in for torch-lr-finder measures what the original measures, and restores everything."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lrfinder import ArgumentError, StopReason
from lrfinder.integrations.torch_lr_finder import LRFinder, TrainDataLoaderIter, ValDataLoaderIter
from tests.fingerprint import Fingerprint, differences, process_state
from tests.problems import one_thread, seed_all  # noqa: F401 - applies by being imported

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")

QUIET = {"progress": False}


class Augmented(Dataset):
    """Samples that draw from torch's random stream when they are read."""

    def __init__(self):
        self.inputs = torch.randn(96, 4)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        x = self.inputs[index]
        return x + 0.1 * torch.randn(4), x.sum(0, keepdim=True)


def data(rows=96):
    x = torch.randn(rows, 4)
    return TensorDataset(x, x.sum(1, keepdim=True), torch.arange(rows))


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 1e-4, "momentum": 0.9, **options})


def two_groups(model):
    return torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 1e-5}, {"params": model[1:].parameters()}], lr=1e-3, momentum=0.9
    )


CASES = {
    "exp": {},
    "linear": {"step_mode": "linear", "end_lr": 1.0},
    "no_smoothing": {"smooth_f": 0.0},
    "start_lr": {"start_lr": 1e-6, "num_iter": 33},
    "accumulation": {"accumulation_steps": 3, "num_iter": 20},
    "low_threshold": {"diverge_th": 1.5, "smooth_f": 0.5},
    "val_loader": {"val": True, "num_iter": 12},
    "adam": {"optimizer": lambda model: torch.optim.Adam(model.parameters(), lr=1e-5)},
    "two_groups": {"optimizer": two_groups},
    "two_groups_start_lr": {"optimizer": two_groups, "start_lr": 1e-6},
    "augmented": {"data": Augmented, "num_iter": 20},
    "workers": {"data": Augmented, "num_iter": 8, "workers": 2, "val": True},
    "iterators": {"iterators": True, "val": True, "num_iter": 15},
    "mixed_precision": {"amp": True, "num_iter": 20},
}


def run(package, *, optimizer=sgd, data=data, val=False, workers=0, iterators=False, amp=False, **options):
    """Run a range test through `package`: the original or the drop-in."""
    seed_all(0)
    model = network()
    train = DataLoader(data(), batch_size=16, shuffle=True, num_workers=workers)
    held_out = DataLoader(data(), batch_size=40, shuffle=True) if val else None
    if iterators:
        train, held_out = package.TrainDataLoaderIter(train), package.ValDataLoaderIter(held_out)
    mixed = {}
    if amp:
        mixed = {
            "amp_backend": "torch",
            "amp_config": {"device_type": "cpu", "dtype": torch.bfloat16},
            "grad_scaler": torch.amp.GradScaler("cpu", init_scale=1024.0),
        }
    finder = package.LRFinder(model, optimizer(model), nn.MSELoss(), **mixed)
    finder.range_test(train, val_loader=held_out, **options)
    return finder


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_losses_and_learning_rates_are_those_of_the_original_bit_for_bit(case):
    original = pytest.importorskip("torch_lr_finder")
    from lrfinder.integrations import torch_lr_finder as ours

    expected, found = run(original, **CASES[case]), run(ours, **CASES[case])

    assert found.history == expected.history
    assert found.best_loss == expected.best_loss
    assert len(found.history["loss"]) > 5


def make(**options):
    seed_all(0)
    model = network()
    loader = DataLoader(data(), batch_size=16, shuffle=True, generator=torch.Generator())
    return model, sgd(model), loader


def train(model, optimizer, loader):
    for inputs, labels, _ in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), labels)
        loss.backward()
        optimizer.step()
    return [*model.state_dict().values(), *(state["momentum_buffer"] for state in optimizer.state.values())]


def test_range_test_then_train_equals_train():
    expected = train(*make())

    model, optimizer, loader = make()
    LRFinder(model, optimizer, nn.MSELoss()).range_test(loader, val_loader=loader, num_iter=10, **QUIET)

    assert all(map(torch.equal, train(model, optimizer, loader), expected))


class Fault(Exception):
    pass


@pytest.mark.parametrize("fault", [None, Fault("in the criterion"), KeyboardInterrupt()])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_everything_is_restored_also_after_a_fault(fault, accumulation_steps):
    model, optimizer, loader = make()
    model.eval()
    train(model, optimizer, loader)
    calls = 0

    class Criterion(nn.MSELoss):
        def forward(self, outputs, labels):
            nonlocal calls
            calls += 1
            if fault is not None and calls == 9:
                raise fault
            return super().forward(outputs, labels)

    criterion = Criterion()
    parts = {"model": model, "optimizer": optimizer, "loader": loader, "criterion": criterion}
    before, process = Fingerprint(**parts), process_state()
    finder = LRFinder(model, optimizer, criterion)
    options = {"num_iter": 12, "accumulation_steps": accumulation_steps, "end_lr": 1.0}
    if fault is None:
        finder.range_test(loader, val_loader=loader, **options, **QUIET)
        finder.reset()
    else:
        with pytest.raises(type(fault)) as caught:
            finder.range_test(loader, **options, **QUIET)
        assert caught.value is fault
        assert finder.result is None
        assert len(finder.history["loss"]) == 8 // accumulation_steps

    assert differences(before.values, Fingerprint(**parts).values) == []
    assert differences(process, process_state()) == []


@pytest.mark.parametrize("in_memory", [True, False])
def test_reset_undoes_a_training_that_came_later(in_memory, tmp_path):
    model, optimizer, loader = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    finder = LRFinder(model, optimizer, nn.MSELoss(), memory_cache=in_memory, cache_dir=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == (0 if in_memory else 1)
    finder.range_test(loader, num_iter=5, **QUIET)
    train(model, optimizer, loader)

    finder.reset()

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not optimizer.state
    del finder
    assert not list(tmp_path.iterdir())


def test_result_suggests_and_schedules():
    model, optimizer, loader = make()
    finder = LRFinder(model, optimizer, nn.MSELoss())
    finder.range_test(loader, end_lr=100, num_iter=80, smooth_f=0.0, total_steps=60, schedule="cosine", **QUIET)
    result = finder.result

    assert result.losses.tolist() == finder.history["loss"]
    assert result.lrs.tolist() == finder.history["lr"]
    assert result.stop_reason is StopReason.DIVERGED
    assert result.context.batch_size == 16
    assert result.context.momentum == 0.9
    assert result.total_steps == 60
    assert 1e-4 < result.suggestion.lr < 1.0
    result.scheduler()
    assert optimizer.param_groups[0]["lr"] == result.suggestion.lr


def test_raw_losses_of_the_result_are_not_smoothed():
    model, optimizer, loader = make()
    finder = LRFinder(model, optimizer, nn.MSELoss())
    finder.range_test(loader, num_iter=10, end_lr=0.1, smooth_f=0.25, **QUIET)

    smoothed = [finder.result.losses[0]]
    for loss in finder.result.losses[1:]:
        smoothed.append(0.25 * loss + 0.75 * smoothed[-1])
    assert finder.history["loss"] == smoothed


def test_groups_keep_their_ratios_in_the_result():
    seed_all(0)
    model = network()
    finder = LRFinder(model, two_groups(model), nn.MSELoss())
    finder.range_test(DataLoader(data(), batch_size=16), num_iter=8, **QUIET)

    assert finder.result.group_ratios == (1.0, pytest.approx(100.0))


def test_a_subclass_says_what_inputs_and_labels_are():
    seed_all(0)
    x = torch.randn(64, 4)
    samples = [{"features": row, "target": row.sum(0, keepdim=True)} for row in x]
    model = network()

    class Train(TrainDataLoaderIter):
        def inputs_labels_from_batch(self, batch_data):
            return batch_data["features"], batch_data["target"]

    class Held(ValDataLoaderIter):
        def inputs_labels_from_batch(self, batch_data):
            return batch_data["features"], batch_data["target"]

    loader = DataLoader(samples, batch_size=16)
    finder = LRFinder(model, sgd(model), nn.MSELoss())
    finder.range_test(Train(loader), val_loader=Held(loader), num_iter=10, end_lr=0.1, **QUIET)
    assert len(finder.history["loss"]) == 10

    finder.range_test(Train(loader, auto_reset=False), num_iter=10, end_lr=0.1, **QUIET)
    assert len(finder.history["loss"]) == 4
    assert finder.result.stop_reason is StopReason.EXHAUSTED

    with pytest.raises(ArgumentError, match=r"batch type is not supported.*inputs_labels_from_batch"):
        finder.range_test(loader, **QUIET)


def test_a_validation_iterator_starts_again_only_through_iter():
    iterator = ValDataLoaderIter(DataLoader(data(32), batch_size=16))
    assert len(list(iterator)) == 2
    with pytest.raises(StopIteration):
        next(iterator)
    assert len(list(iterator)) == 2
    assert len(iterator.dataset) == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_mode": "cosine"}, r"expected one of \(exp, linear\)"),
        ({"smooth_f": 1.0}, "smooth_f is outside"),
        ({"num_iter": 1}, "`num_iter` must be larger than 1"),
        ({"end_lr": 1e-5}, "`end_lr` must be larger"),
        ({"train_loader": [1]}, "`train_loader` has unsupported type"),
        ({"val_loader": [1]}, "`val_loader` has unsupported type"),
    ],
)
def test_wrong_arguments_are_value_errors(options, message):
    model, optimizer, loader = make()
    finder = LRFinder(model, optimizer, nn.MSELoss())
    with pytest.raises(ValueError, match=message):
        finder.range_test(**{"train_loader": loader, **options, **QUIET})


def test_wrong_setups_are_refused(tmp_path):
    model, optimizer, loader = make()
    with pytest.raises(ValueError, match="Unknown amp backend"):
        LRFinder(model, optimizer, nn.MSELoss(), amp_backend="apex")
    with pytest.raises(ValueError, match="`grad_scaler` is required"):
        LRFinder(model, optimizer, nn.MSELoss(), amp_backend="torch")
    with pytest.raises(ValueError, match="not a valid directory"):
        LRFinder(model, optimizer, nn.MSELoss(), memory_cache=False, cache_dir=str(tmp_path / "none"))
    finder = LRFinder(model, optimizer, nn.MSELoss())
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.raises(RuntimeError, match="already has a scheduler"):
        LRFinder(model, optimizer, nn.MSELoss())
    with pytest.raises(RuntimeError, match="already has a scheduler"):
        finder.range_test(loader)


def test_several_processes_are_sent_to_find(monkeypatch):
    model, optimizer, loader = make()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ArgumentError, match=r"process group of 2.*LRFinder"):
        LRFinder(model, optimizer, nn.MSELoss()).range_test(loader, **QUIET)


def test_plot_returns_axes_and_the_steepest_learning_rate():
    model, optimizer, _ = make()
    finder = LRFinder(model, optimizer, nn.MSELoss())
    finder.history = {"lr": list(range(1, 8)), "loss": [9.0, 8.0, 3.0, 2.0, 2.0, 5.0, 9.0]}
    with mpl.rc_context({"backend": "agg"}):
        ax, lr = finder.plot(skip_start=1, skip_end=1, show_lr=2.5)
        assert lr == 1 + int(np.gradient([8.0, 3.0, 2.0, 2.0, 5.0]).argmin()) + 1
        assert ax.lines[0].get_xdata().tolist() == [2, 3, 4, 5, 6]
        assert list(ax.lines[1].get_xdata()) == [2.5, 2.5]
        assert ax.get_xscale() == "log"
        assert len(ax.collections) == 1
        other = finder.plot(skip_start=0, skip_end=0, log_lr=False, ax=plt.subplots()[1], suggest_lr=False)
        assert other.get_xscale() == "linear"
        assert len(other.lines[0].get_xdata()) == 7
        assert not other.collections
        assert not len(finder.plot(skip_start=4, skip_end=8, suggest_lr=False).lines[0].get_xdata())
    plt.close("all")
    with pytest.raises(RuntimeError, match="Need at least 17 iterations"):
        finder.plot()
    with pytest.raises(ValueError, match="skip_start cannot be negative"):
        finder.plot(skip_start=-1)
    with pytest.raises(ValueError, match="show_lr must be float"):
        finder.plot(show_lr=1)


# MONAI's LearningRateFinder


def run_monai(finder_class, *, val=False, **options):
    seed_all(0)
    samples = [{"image": row, "label": row.sum(0, keepdim=True)} for row in torch.randn(96, 4)]
    model = network()
    finder = finder_class(model, sgd(model), nn.MSELoss(), verbose=False)
    loader = DataLoader(samples, batch_size=16, shuffle=True)
    finder.range_test(loader, DataLoader(samples, batch_size=40) if val else None, **options)
    return finder


@pytest.mark.filterwarnings("default")  # of MONAI and what it imports
@pytest.mark.parametrize("options", [{}, {"val": True, "num_iter": 8}, {"step_mode": "linear", "smooth_f": 0.0}])
def test_losses_are_those_of_monai_bit_for_bit(options):
    original = pytest.importorskip("monai.optimizers")
    from lrfinder.integrations.monai import LearningRateFinder

    expected, found = run_monai(original.LearningRateFinder, **options), run_monai(LearningRateFinder, **options)

    assert found.history == expected.history
    assert found.get_steepest_gradient() == expected.get_steepest_gradient()
    assert found.get_lrs_and_losses(2, 3) == expected.get_lrs_and_losses(2, 3)


def test_the_finder_of_monai_takes_extractors_and_plots():
    from lrfinder.integrations.monai import LearningRateFinder

    seed_all(0)
    model, loader = network(), DataLoader([{"x": row, "y": row[:1]} for row in torch.randn(64, 4)], batch_size=16)
    finder = LearningRateFinder(model, sgd(model), nn.MSELoss(), verbose=False)
    finder.range_test(loader, None, lambda batch: batch["x"], lambda batch: batch["y"], num_iter=20)

    assert finder.result.suggestions is not None
    with mpl.rc_context({"backend": "agg"}):
        ax = finder.plot(skip_start=1, skip_end=2)
        assert len(ax.lines[0].get_xdata()) == len(finder.history["lr"]) - 4
        assert len(ax.collections) == 1
        assert not finder.plot(steepest_lr=False).collections
    plt.close("all")
    assert finder.get_steepest_gradient(0, 100) == (None, None)
    with pytest.raises(ValueError, match="cannot be negative"):
        finder.get_lrs_and_losses(-1)
    with pytest.raises(ArgumentError, match="apex"):
        LearningRateFinder(model, sgd(model), nn.MSELoss(), amp=True)
    with pytest.raises(ValueError, match="`train_loader` has unsupported type"):
        finder.range_test([1])
