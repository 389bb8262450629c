"""What a find costs beyond its training steps, as far as it can be counted; benchmarks/overhead.py takes times."""

import gc
import math
import sys
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Sampler

from lrfinder import LRFinder, Snapshot, Sweep
from lrfinder.distributed import ALONE
from lrfinder.optim.lr_writer import LRWriter
from lrfinder.training.batches import Batches
from lrfinder.training.loop import run_sweep
from lrfinder.training.loss import BatchLoss
from lrfinder.training.loss_queue import LAG, LossQueue
from lrfinder.training.step import TrainingStep
from tests.fingerprint import bytes_copied
from tests.notes import Notes

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")

RANGE = {"start_lr": 1e-6, "end_lr": 1e-4}  # so low that nothing diverges
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
}


def setup(optimizer="sgd", device="cpu"):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).to(device)
    batches = [(torch.randn(5, 4, device=device), torch.randint(0, 3, (5,), device=device)) for _ in range(4)]
    return model, OPTIMIZERS[optimizer](model.parameters()), batches


def find(model, optimizer, batches, num_iter=20, *, max_grad_norm=None, **options):
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), max_grad_norm=max_grad_norm)
    return finder.find(batches, num_iter=num_iter, progress=False, **(RANGE | options))


class Operators(TorchDispatchMode):
    """Counts the operators that are dispatched, and the copies that reach the host from elsewhere."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.device.type == "cpu":
            others = [a for a in args if isinstance(a, torch.Tensor) and a.device.type != "cpu"]
            self.counts["to the host"] += len(others)
        return out


def operators_of(work):
    with Operators() as operators:
        work()
    with Operators() as one:  # which older versions of torch count twice
        torch.ones(1).detach()
    counts = operators.counts
    return Counter({key: count // one.counts[key] if key == "detach" else count for key, count in counts.items()})


# No waiting on the device


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("max_grad_norm", [None, 1.0])
def test_a_step_of_the_sweep_reads_nothing_that_the_bare_step_does_not_read(name, max_grad_norm, device):
    def bare(num_iter):
        model, optimizer, batches = setup(name, device)
        for step in range(num_iter):
            inputs, targets = batches[step % len(batches)]
            optimizer.param_groups[0]["lr"] = 1e-6
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
            optimizer.step()

    def ours(num_iter):
        find(*setup(name, device), num_iter, max_grad_norm=max_grad_norm)

    ours(5)  # torch imports some of its parts at first use
    extra = Counter()
    for work, sign in ((ours, 1), (bare, -1)):
        long, short = operators_of(lambda work=work: work(30)), operators_of(lambda work=work: work(10))
        for key in {*long, *short}:
            extra[key] += sign * (long[key] - short[key])
    extra = {key: count / 20 for key, count in extra.items() if count}
    assert not {"_local_scalar_dense", "item", "equal", "nonzero"} & set(extra)
    if device.type == "cpu":
        assert extra == {"detach": 1.0}  # the loss, which lies where the host can see it
    else:  # the copy to pinned memory, which does not block, too
        assert sum(extra.values()) <= 4


class LateReader:
    """Stands in for a device: knows which losses were recorded, and notes how old each is when it is read."""

    def __init__(self, losses=lambda index: 1.0):
        self.losses, self.requested, self.ages = losses, [], []

    def request(self, index):
        self.requested.append(index)

    def read(self, index):
        self.ages.append(self.requested[-1] - index)
        return self.losses(index)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_on_the_meta_device_a_whole_sweep_runs_since_nothing_looks_at_a_value(name):
    meta = torch.device("meta")
    model, optimizer, batches = setup(name, "meta")
    reader = LateReader()
    step = TrainingStep(BatchLoss(model, nn.CrossEntropyLoss(), None, meta), optimizer, max_grad_norm=1.0)
    sweep = Sweep([10.0**i for i in range(-20, 0)])
    run_sweep(
        sweep,
        LRWriter(optimizer).write,
        step,
        Batches(batches),
        queue=LossQueue(20, meta, reader=reader),
        ranks=ALONE,
    )
    assert len(sweep.losses) == 20
    assert reader.ages == [LAG] * (20 - LAG) + list(reversed(range(LAG)))  # the rest once the sweep is over


def test_what_ran_past_the_stop_is_as_many_steps_as_the_host_reads_late():
    meta = torch.device("meta")
    model, optimizer, batches = setup("sgd", "meta")
    step = TrainingStep(BatchLoss(model, nn.CrossEntropyLoss(), None, meta), optimizer)
    sweep, steps = Sweep([10.0**i for i in range(-20, 0)]), []
    reader = LateReader(lambda index: math.nan if index == 7 else 1.0)
    queue = LossQueue(20, meta, reader=reader)
    write = LRWriter(optimizer).write
    run_sweep(sweep, write, step, Batches(batches), queue=queue, ranks=ALONE, after_step=steps.append)
    assert len(sweep.losses) == 7
    assert steps[-1] == 8 + LAG


# Memory


def test_a_snapshot_holds_each_byte_once():
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64))
    model[2].weight = model[0].weight  # tied
    model.register_buffer("view", model[0].bias.detach()[:8])
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 64)).sum().backward()
    optimizer.step()
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    buffers = [*model[1].buffers()]
    expected = sum(t.numel() * t.element_size() for t in [*model.parameters(), *buffers, *state])
    taken = bytes_copied(Snapshot([model, model], [optimizer], extra_state=[model, optimizer]))
    assert expected <= taken <= expected + 16 * (len(state) + 12)  # small ones are aligned


def test_gradients_are_set_aside_and_not_copied():
    model = nn.Linear(64, 64)
    before = bytes_copied(Snapshot([model]))
    model(torch.randn(4, 64)).sum().backward()
    assert bytes_copied(Snapshot([model])) == before


def test_frozen_parameters_need_not_be_copied():
    frozen, head = nn.Linear(1000, 100), nn.Linear(100, 1, bias=False)
    frozen.requires_grad_(False)
    model = nn.Sequential(frozen, head)
    assert bytes_copied(Snapshot([model], snapshot_frozen=False)) == 400
    assert bytes_copied(Snapshot([model])) >= 400 + 4 * 100_100


def test_copies_on_the_host_take_less_of_the_device_than_its_largest_tensor(device):
    if device.type == "cpu":
        pytest.skip("needs --device cuda")
    model = nn.Sequential(*(nn.Linear(1000, 1000) for _ in range(4))).to(device)
    torch.accelerator.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    snapshot = Snapshot([model], snapshot_device="cpu")
    snapshot.restore()
    assert torch.cuda.max_memory_allocated() - before < 4_000_000


def test_many_tensors_are_copied_in_one_batch():
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(100)))
    kept = []
    taking = operators_of(lambda: kept.append(Snapshot([model])))
    restoring = operators_of(kept[0].restore)
    for counts in (taking, restoring):
        assert counts["_foreach_copy_"] == 1
        assert counts["copy_"] == 0
    assert sum(restoring.values()) < 10  # nothing for each tensor
    assert sum(taking.values()) <= 200 * 6 + 10  # views of it and of its copy


# Start-up


TRAINING = """
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
data = [torch.randn(4, 2)] * 4
from torch.utils.data import DataLoader
"""
STEP = "loss = model(data[0]).pow(2).mean(); loss.backward(); optimizer.step(); optimizer.zero_grad()"
FIND = """
from lrfinder import LRFinder
result = LRFinder(model, optimizer, loss_fn=lambda model, batch: model(batch).pow(2).mean()).find(data, progress=False)
str(result), result.suggestions, result.to_dict()
"""


def test_a_find_loads_scipys_filters_and_no_other_package_that_training_does_not(modules_after):
    trained = modules_after(TRAINING + STEP + "\nimport scipy.ndimage")
    found = modules_after(TRAINING + STEP + FIND)
    packages = {name.partition(".")[0] for name in found - trained} - set(sys.stdlib_module_names)
    assert packages <= {"lrfinder", "numpy", "typing_extensions"}
    assert not [name for name in found - trained if name.startswith("scipy")]


def test_importing_loads_no_scipy(modules_after):
    assert not [name for name in modules_after("import lrfinder.finder") if name.startswith("scipy")]


# Growth


def calls_of(work):
    count = 0

    def profile(frame, event, argument):
        nonlocal count
        count += event == "call"

    gc.collect()
    gc.disable()  # finalizers of other objects would be counted
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def test_a_step_costs_the_same_in_a_long_sweep():
    def cost(num_iter):
        return calls_of(lambda: find(*setup(), num_iter, smoothing="none"))

    cost(20)  # what is paid once
    short, middle, long = cost(100), cost(200), cost(400)
    assert (long - middle) / 200 <= 1.1 * (middle - short) / 100  # rules' loops depend on the losses a little


def test_a_step_costs_the_same_with_a_long_loader():
    def cost(length):
        model, optimizer, _ = setup()
        batch = (torch.randn(5, 4), torch.randint(0, 3, (5,)))
        loader = DataLoader([batch] * length, batch_size=None, sampler=Drawn(length))
        return calls_of(lambda: find(model, optimizer, loader))

    for _ in range(2):
        cost(100)  # what is paid once, some of it in the second find
    assert cost(100_000) == pytest.approx(cost(100), rel=0.01)


class Drawn(Sampler):
    """Draws indices as it is asked for them, and reports when it is started: a count of its own would be restored."""

    def __init__(self, length, started=lambda length: None):
        self.length, self.started = length, started

    def __iter__(self):
        self.started(self.length)
        for _ in range(self.length):
            yield int(torch.randint(self.length, ()))

    def __len__(self):
        return self.length


class Rows(torch.utils.data.Dataset):
    """Ten million samples that are made when they are asked for."""

    def __len__(self):
        return 10_000_000

    def __getitem__(self, index):
        return torch.full((4,), index / len(self)), index % 3


@pytest.mark.parametrize(("options", "sweeps"), [({}, 1), ({"start_lr": None, "end_lr": None}, 2), ({"repeats": 2}, 1)])
def test_a_sampler_is_started_once_a_sweep(options, sweeps):
    model, optimizer, _ = setup()
    starts = []
    sampler = Drawn(10_000_000, starts.append)
    find(model, optimizer, DataLoader(Rows(), batch_size=5, sampler=sampler), **options)
    assert len(starts) == sweeps  # repeats go on with the stream of the first


# torch.compile and captured graphs


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's own
def test_compiled_models_and_optimizers_are_not_compiled_again(device):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model, _, batches = setup(device=device)
    fast = torch.compile(model, backend=backend)
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01, device=device))
    update = torch.compile(optimizer.step, backend=backend)

    def step(batch):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(fast(batch[0]), batch[1])
        loss.backward()
        update()
        return loss

    for batch in batches:
        step(batch)
    before = len(compiled)
    assert before >= 2  # the model and the optimizer
    result = LRFinder(fast, optimizer, step=step).find(batches, num_iter=10, progress=False, **RANGE)
    assert result.steps == 10
    for batch in batches:
        step(batch)
    assert len(compiled) == before
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.01)


def test_tensor_lrs_are_written_in_place(device):
    model, _, batches = setup(device=device)
    rate = torch.tensor(0.01, device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, capturable=device.type == "cuda")
    seen = Notes()

    def loss_fn(model, batch):
        assert optimizer.param_groups[0]["lr"] is rate
        seen.append(float(rate))
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    result = LRFinder(model, optimizer, loss_fn=loss_fn).find(batches, num_iter=10, progress=False, **RANGE)
    assert list(seen) == pytest.approx(result.lrs.tolist())
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.01)
