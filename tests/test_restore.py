"""Nothing is left behind: everything is as before find(), and find-then-train equals train, bit for bit."""

import gc
import random

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader

from lrfinder import LRFinderError, LRFinderWarning, RestoreError, compare, find_each_group
from tests.benchmarks import restore as benchmark
from tests.fingerprint import Fingerprint, bits, differences, process_state
from tests.notes import Notes
from tests.problems import PROBLEMS, Augmented, build, mlp, one_thread, plain, seed_all, vectors  # noqa: F401 - applies by being imported

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")

LOADERS = [
    "cnn", "own_generator", "weighted_sampler", "epoch_sampler", "epoch_sampler_in_batches", "bucket_sampler",
    "augmented", "iterable_data_set", "plain_list", "generators_in_the_data_set", "generator_of_the_collate_function",
    "new_generator_at_each_epoch", "legacy_sampler", "workers", "persistent_workers",
    "persistent_workers_own_generator",
]  # fmt: skip


class Watch:
    """Compares everything with what it was when the watch began."""

    def __init__(self, setup):
        gc.collect()  # or the workers of an earlier test end in between
        self._setup = setup
        self._before = self._look()

    def _look(self):
        return Fingerprint(**self._setup.parts()), process_state()

    def assert_as_before(self):
        found, process = self._look()
        before, process_before = self._before
        assert differences(before.values, found.values) == []
        assert differences(process_before, process) == []


def assert_same_results(first, second):
    assert len(first.losses) > 0
    ours, theirs = first.to_dict(), second.to_dict()
    for each in (ours, theirs):
        each.pop("seconds")
    assert ours == theirs


def values(setup):
    """Return the bits of all that training changes, without identities."""
    owners = [setup.model, setup.criterion, *setup.more.values()]
    tensors = [
        tensor for owner in owners if isinstance(owner, nn.Module) for tensor in (*owner.parameters(), *owner.buffers())
    ]
    return [bits(tensor) for tensor in tensors]


def tell_apart(setup):
    """Return an `on_step` that notes the parameters' bits, and the notes."""
    notes = []
    return lambda *_: notes.append(hash(tuple(bits(p) for p in setup.model.parameters() if p.requires_grad))), notes


def assert_trains_as_without(name, device, find, *, before=3, after=6):
    """Train twice from the same start, once with `find(setup)` in between: losses and tensors have the same bits."""
    without = build(name, device)
    expected = without.train(before) + without.train(after)
    final = process_state()
    setup = build(name, device)
    losses = setup.train(before)
    find(setup)
    assert losses + setup.train(after) == expected
    assert values(setup) == values(without)
    assert differences({key: final[key] for key in ("python", "numpy", "torch")}, process_state()) == [
        key for key in final if key not in {"python", "numpy", "torch"}
    ]


@pytest.mark.parametrize("scout", [False, True], ids=["range given", "scouted"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_everything_is_as_before(name, scout, device):
    setup = build(name, device)
    setup.train(3 if scout else 0)
    on_step, notes = tell_apart(setup)
    watch = Watch(setup)
    first = setup.find(scout=scout, on_step=on_step)
    watch.assert_as_before()
    assert len(set(notes)) > 2, "the sweep did not train"
    second = setup.find(scout=scout)
    watch.assert_as_before()
    assert_same_results(first, second)


@pytest.mark.parametrize("before", [0, 3], ids=["fresh", "in the middle of an epoch"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_find_then_train_equals_train(name, before, device):
    assert_trains_as_without(name, device, lambda setup: setup.find(scout=before > 0), before=before)


@pytest.mark.parametrize("name", LOADERS)
def test_between_epochs(name, device):
    without = build(name, device)
    expected = without.epoch() + without.epoch() + without.epoch()
    setup = build(name, device)
    losses = setup.epoch()
    setup.find()
    losses += setup.epoch()
    setup.find(num_iter=5)  # less than an epoch and a half
    assert losses + setup.epoch() == expected


@pytest.mark.parametrize("name", ["cnn", "transformer", "teacher", "augmented", "criterion_with_parameters", "lbfgs"])
@pytest.mark.parametrize(
    "arguments",
    [{"val_loader": "own", "val_batches": 2}, {"repeats": 2}, {"mode": "linear"}, {"val_loader": "own", "repeats": 2}],
    ids=["validation", "repeats", "linear", "validation and repeats"],
)
def test_with_options(name, arguments, device):
    def find(setup):
        held_out = DataLoader(setup.loader.dataset, batch_size=8, shuffle=True)
        chosen = {**arguments, **({"val_loader": held_out} if "val_loader" in arguments else {})}
        watch = Watch(setup)
        first = setup.find(**chosen)
        watch.assert_as_before()
        assert_same_results(first, setup.find(**chosen))

    assert_trains_as_without(name, device, find)


@pytest.mark.parametrize(
    "name",
    [
        "cnn",
        "rnn",
        "transformer",
        "sparse_embedding",
        "lbfgs",
        "sharpness_aware",
        "accumulation",
        "grad_scaler_clipping",
    ],
)
def test_with_gradient_norms(name, device):
    def find(setup):
        watch = Watch(setup)
        result = setup.find(grad_norms=True)
        watch.assert_as_before()
        assert len(result.grad_norms) == len(result.lrs)

    assert_trains_as_without(name, device, find)


@pytest.mark.parametrize("name", ["tensor_rates", "shared_tensor_rate", "different_rates_while_warming_up"])
@pytest.mark.parametrize("group", [0, 1, "each", "each, refined"])
def test_one_group_at_a_time(name, group, device):
    def find(setup):
        watch = Watch(setup)
        if isinstance(group, int):
            setup.find(group=group)
        else:
            options = {"refine": True, "total_steps": 40} if "refined" in group else {"num_iter": 20}
            find_each_group(setup.finder(), setup.loader, progress=False, **options)
        watch.assert_as_before()

    assert_trains_as_without(name, device, find)


@pytest.mark.parametrize("name", ["cnn", "transformer", "own_generator", "tensor_rates", "grad_scaler", "fused_adamw"])
@pytest.mark.parametrize("compared", ["weight_decay", "loaders", "finders"])
def test_comparing_settings(name, compared, device):
    def find(setup):
        finder, loader, settings = setup.finder(), setup.loader, None
        if compared == "weight_decay":
            settings = {"weight_decay": [0.0, 0.1]}
        elif compared == "loaders":
            loader = {"own": loader, "other": DataLoader(loader.dataset, batch_size=4, shuffle=True)}
        else:
            finder = {"one": finder, "other": setup.finder(max_grad_norm=0.1)}
        watch = Watch(setup)
        found = compare(finder, loader, settings, start_lr=1e-4, end_lr=1e-1, num_iter=8, progress=False)
        watch.assert_as_before()
        first, second = (result.losses.tolist() for result in found.results.values())
        assert first != second, "the settings made no difference"

    assert_trains_as_without(name, device, find)


def test_validation_on_the_training_loader(device):
    def find(setup):
        setup.find(val_loader=setup.loader, val_batches=2)

    assert_trains_as_without("own_generator", device, find)


@pytest.mark.parametrize("name", ["cnn", "rnn", "grad_scaler_clipping", "own_optimizer", "buffers", "bfloat16"])
def test_after_losses_that_are_not_finite(name, device):
    def find(setup):
        watch = Watch(setup)
        result = setup.find(start_lr=1.0, end_lr=1e38)
        watch.assert_as_before()
        assert_same_results(result, setup.find(start_lr=1.0, end_lr=1e38))

    assert_trains_as_without(name, device, find)


@pytest.mark.parametrize("name", ["cnn", "rnn", "sparse_embedding", "grad_scaler", "shared_tensor_rate"])
def test_gradients_in_the_middle_of_an_accumulation(name, device):
    """They come back as the same tensors, so that the accumulation goes on."""

    def half_a_step(setup):
        setup.loss(next(iter(setup.loader))).backward()

    without = build(name, device)
    half_a_step(without)
    half_a_step(without)
    without.optimizer.step()
    setup = build(name, device)
    half_a_step(setup)
    gradients = [p.grad for p in setup.model.parameters()]
    watch = Watch(setup)
    setup.find(scout=True)
    watch.assert_as_before()
    assert all(p.grad is grad for p, grad in zip(setup.model.parameters(), gradients, strict=True))
    half_a_step(setup)
    setup.optimizer.step()
    assert values(setup) == values(without)


def test_gradients_that_are_views_of_one_buffer(device):
    """As DDP's buckets are: their memory may be written to meanwhile, so that it is copied."""
    setup = build("cnn", device)
    parameters = list(setup.model.parameters())
    bucket = torch.arange(sum(p.numel() for p in parameters), dtype=torch.float32, device=device)
    for p, part in zip(parameters, bucket.split([p.numel() for p in parameters]), strict=True):
        p.grad = part.view_as(p)
    watch, kept = Watch(setup), bits(bucket)
    setup.find(on_step=lambda *_: bucket.fill_(7))
    watch.assert_as_before()
    assert bits(bucket) == kept


def test_one_shot_iterator(device):
    """What it gave is consumed, with a warning; everything else is as before."""
    setup = build("cnn", device)
    batches = [batch for _ in range(12) for batch in setup.loader]
    iterator = iter(batches)
    watch = Watch(setup)
    with pytest.warns(LRFinderWarning, match="8 batches that it gave are consumed"):
        setup.find(loader=iterator)
    watch.assert_as_before()
    assert len(list(iterator)) == len(batches) - 8


def test_a_teacher_that_was_not_copied(device):
    """It is written to at every step: an error names it, after everything else was put back."""
    setup = build("teacher", device)
    frozen = list(setup.model.teacher.parameters())
    finder = setup.finder(snapshot_frozen=False)
    watch, copies = Watch(setup), [p.detach().clone() for p in frozen]
    with pytest.raises(RestoreError, match=r"teacher\.0\.weight"):
        setup.find(finder=finder)
    for p, copy in zip(frozen, copies, strict=True):
        assert not torch.equal(p, copy), "the test needs a teacher that changes"
        p.data.copy_(copy)
    watch.assert_as_before()


def test_error_when_an_uncaptured_optimizer_steps(device):
    setup, critic = plain(device), mlp(3, 1).to(device)
    hidden, model, criterion = Notes((critic, torch.optim.RMSprop(critic.parameters()))), setup.model, setup.criterion
    setup.more = {"critic": critic, "critics": hidden[0][1]}

    def step(batch):
        critic, critics = hidden[0]
        outputs = model(batch[0])
        critic(outputs.detach()).mean().backward()
        critics.step()
        return criterion(outputs, batch[1])

    finder = setup.finder(criterion=None, step=step)
    watch = Watch(setup)
    with pytest.raises(LRFinderError, match=r"RMSprop .* extra_state=\[that_optimizer\]"):
        setup.find(finder=finder)
    critic.zero_grad()  # its gradients came before the step
    watch.assert_as_before()


@pytest.fixture
def one_process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("as_views", [False, True], ids=["gradients apart", "gradients as bucket views"])
def test_ddp_in_one_process(one_process_group, as_views):
    def parallel():
        seed_all(0)
        setup = plain(torch.device("cpu"), DataLoader(Augmented(vectors()), batch_size=8, shuffle=True))
        inner = setup.model
        inner.insert(1, nn.BatchNorm1d(8))
        setup.model = nn.parallel.DistributedDataParallel(inner, gradient_as_bucket_view=as_views)
        setup.optimizer = torch.optim.SGD(inner.parameters(), lr=0.1, momentum=0.9)
        return setup

    without, setup = parallel(), parallel()
    seed_all(1)
    expected = without.train(3) + without.train(6)
    seed_all(1)
    losses = setup.train(3)
    look = {"model": setup.model.module, "optimizer": setup.optimizer, "loader": setup.loader}
    before, process = Fingerprint(**look), process_state()
    first = setup.find()
    assert differences(before.values, Fingerprint(**look).values) == []
    assert differences(process, process_state()) == []
    assert_same_results(first, setup.find())
    assert losses + setup.train(6) == expected
    assert values(setup) == values(without)


def test_a_bar_is_closed(device, capsys):
    setup = build("cnn", device)
    watch = Watch(setup)
    setup.find(progress=True)
    watch.assert_as_before()
    assert "LR range test" in capsys.readouterr().err


# That the tests above can fail: each kind of change is seen.


def _change_attribute(setup):
    setup.model.count = 1


def _change_flag(setup):
    setup.model[1].train(not setup.model[1].training)


def _replace_parameter(setup):
    setup.model[5].weight = nn.Parameter(setup.model[5].weight.detach().clone())


def _reallocate_parameter(setup):
    setup.model[5].weight.data = setup.model[5].weight.data.clone()


def _negative_zero(setup):
    setup.model[1].running_mean.mul_(-1.0)  # zeros, so that == would see nothing


def _replace_gradient(setup):
    setup.model[5].weight.grad = torch.zeros_like(setup.model[5].weight)


def _insert_state(setup):
    _ = setup.optimizer.state[setup.model[5].weight]


def _replace_group(setup):
    setup.optimizer.param_groups[0] = dict(setup.optimizer.param_groups[0])


def _add_hook(setup):
    setup.model[0].register_forward_hook(lambda *_: None)


def _change_loader(setup):
    setup.loader._iterator = iter(setup.loader)


@pytest.mark.parametrize(
    "change",
    [
        _change_attribute, _change_flag, _replace_parameter, _reallocate_parameter, _negative_zero, _replace_gradient,
        _insert_state, _replace_group, _add_hook, _change_loader, lambda _: random.random(),
        lambda _: np.random.rand(), lambda _: torch.rand(1),  # noqa: NPY002 - the global stream is what is watched
        lambda _: register_optimizer_step_pre_hook(lambda *_: None),
    ],
)  # fmt: skip
def test_changes_are_seen(change):
    setup = build("cnn")
    watch = Watch(setup)
    watch.assert_as_before()
    handle = change(setup)
    with pytest.raises(AssertionError):
        watch.assert_as_before()
    if hasattr(handle, "remove"):
        handle.remove()


def test_another_start_trains_otherwise(device):
    """The comparison of two trainings can tell them apart."""
    with pytest.raises(AssertionError):
        assert_trains_as_without("cnn", device, lambda setup: setup.train(1))
    with pytest.raises(AssertionError):
        assert_trains_as_without("cnn", device, lambda setup: torch.rand(1))


@pytest.mark.parametrize("fault", [False, True])
def test_the_benchmark_of_finders(fault):
    """This finder keeps all eleven kinds of state, plain steps keep none: no row of the table is there for nothing."""
    assert len(benchmark.KINDS) == 11
    assert all(benchmark.kept("lrfinder", fault=fault).values())
    assert not any(benchmark.kept("no finder: plain steps", fault=fault).values())
