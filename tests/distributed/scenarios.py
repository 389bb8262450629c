"""What a rank does in the tests. Each function is run by all ranks at once and returns plain data for the report."""

import contextlib
import functools
import gc
import os
import signal
import sys
import warnings
import weakref
from datetime import timedelta
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from lrfinder import LRFinderWarning, RankError, Snapshot, compare, find_each_group
from lrfinder.display.progress import Progress
from lrfinder.snapshot.ddp import DDPReducers
from lrfinder.training.loss_queue import LossQueue
from tests.distributed.setups import Setup, dataset
from tests.fingerprint import Fingerprint, bytes_copied, differences, process_state
from tests.notes import Notes

FAULTS = ("loader", "before the model", "forward", "loss", "optimizer", "on_step")


class Fault(Exception):
    """What the user's code raises."""


def fingerprint(setup):
    found = Fingerprint(model=setup.model, optimizer=setup.optimizer, loader=setup.loader).values
    # A reducer cannot be put back, only built again: what it does is compared by training on.
    found = {path: value for path, value in found.items() if ".reducer" not in path and ".logger" not in path}
    return found | process_state()


@contextlib.contextmanager
def unchanged(setup, found):
    """Note in `found["changed"]` what the block has changed."""
    before = fingerprint(setup)
    try:
        yield
    finally:
        found.setdefault("changed", []).extend(differences(before, fingerprint(setup)))


def outcome(call):
    """Return the type and the message of what `call` raises, or nothing."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - it goes into the report
        return [type(error).__name__, str(error)]
    return None


def same_training(kind, before=0, after=4, test=None):
    """Return whether training goes on with the same bits, with and without `test(setup)` in the middle."""
    runs = []
    for test_it in (False, True):
        setup = Setup(kind)
        losses = setup.train(before, epoch=1)
        if test_it:
            (test or Setup.find)(setup)
        runs.append((losses + setup.train(after), setup.bits()))
    return runs[0] == runs[1]


def clean_ddp():
    cases = [("ddp", 0), ("ddp", 1), ("ddp", 3), ("view", 0), ("view", 3), ("hook", 0)]
    return {f"{kind} after {before} steps": same_training(kind, before) for kind, before in cases}


def clean_fsdp():
    return {f"after {before} steps": same_training("fsdp", before) for before in (0, 2)}


def uncured():
    """Without the cure for rebuilt buckets, do the bits differ? If not, the tests above would show nothing."""
    with mock.patch.object(DDPReducers, "restore"):
        return same_training("ddp")


def nothing_changed_ddp():
    return nothing_changed("ddp")


def nothing_changed_fsdp():
    return nothing_changed("fsdp")


def nothing_changed(kind):
    found = {}
    setup = Setup(kind, optimizer=torch.optim.Adam, size=64 * dist.get_world_size())
    setup.sampler.set_epoch(2)
    with unchanged(setup, found):
        setup.find(start_lr=None, end_lr=None, num_iter=12)  # the scout too, and more than an epoch
    setup.train(2)
    with unchanged(setup, found):
        setup.find(num_iter=10, finder=setup.finder(max_grad_norm=1.0, accumulation_steps=2))
    return found


def result_ddp():
    return result("ddp")


def result_fsdp():
    return result("fsdp")


def result(kind):
    """Measure with a record of this rank's own losses beside it."""
    own, points = Notes(), []
    setup = Setup(kind)

    def loss_fn(model, batch):
        loss = setup.criterion(model(batch[0]), batch[1])
        own.append(float(loss.detach()))
        return loss

    with warnings.catch_warnings(record=True) as caught, mock.patch("lrfinder.finder.Progress", wraps=Progress) as bar:
        warnings.simplefilter("always", LRFinderWarning)
        finder = setup.finder(loss_fn=loss_fn)
        found = setup.find(finder=finder, progress=True, end_lr=2e-4, on_step=lambda *point: points.append(point))
    return {
        "own": list(own),
        "points": points,
        "losses": found.losses.tolist(),
        "lrs": found.lrs.tolist(),
        "warnings": list(found.warnings),
        "issued": sum(issubclass(each.category, LRFinderWarning) for each in caught),
        "bar": bar.call_args.kwargs["enabled"],
        "stop_reason": found.stop_reason.value,
        "steps": found.steps,
        "seconds": found.seconds,
        "meta": {name: found.meta[name] for name in ("world_size", "accumulation_steps")},
        "batch_size": found.context.batch_size,
        "suggestions": {rule: each.lr for rule, each in found.suggestions.items()},
    }


def grad_norms_fsdp():
    """Gradient norms of DDP and of FSDP2: those of the mean gradient over all ranks."""
    found = {}
    for kind in ("ddp", "fsdp"):
        setup = Setup(kind, plain=True)
        found[kind] = setup.find(grad_norms=True).grad_norms.tolist()
        found[f"{kind} clipped"] = setup.find(
            finder=setup.finder(max_grad_norm=1e9), grad_norms=True
        ).grad_norms.tolist()
        setup = Setup(kind, plain=True)
        inputs, targets = next(iter(setup.loader))
        setup.criterion(setup.model(inputs), targets).backward()
        gradients = [getattr(p.grad, "full_tensor", lambda p=p: p.grad)().flatten() for p in setup.model.parameters()]
        found[f"{kind} by hand"] = float(torch.cat(gradients).norm())
    return found


def several_ddp():
    return several("ddp")


def several_fsdp():
    return several("fsdp")


def several(kind):
    """Compare settings and sweep each group: what was found, what is left changed, and whether training goes on."""
    options = {"start_lr": 1e-3, "end_lr": 10.0, "num_iter": 24, "progress": False}
    results = {}

    def in_groups(setup):
        head = list(setup.net.head.parameters())
        body = [p for p in setup.net.parameters() if not any(p is other for other in head)]
        groups = [{"params": body, "lr": 0.05, "name": "body"}, {"params": head, "lr": 0.1, "name": "head"}]
        setup.optimizer = torch.optim.SGD(groups, momentum=0.9)

    def test(setup):
        with unchanged(setup, results):
            compared = compare(setup.finder(), setup.loader, {"weight_decay": [0.0, 0.1]}, **options)
            each = find_each_group(setup.finder(), setup.loader, **options)
        for found in (compared.results, each):
            results.update({name: result.losses.tolist() for name, result in found.items()})
        results["best"] = [compared.best, list(compared.tied)]

    runs = []
    for test_it in (False, True):
        setup = Setup(kind)
        in_groups(setup)
        losses = setup.train(2, epoch=1)
        if test_it:
            test(setup)
        runs.append((losses + setup.train(4), setup.bits()))
    return {**results, "same training": runs[0] == runs[1]}


def decisions():
    """All ranks stop at the same step for the same reason, though only one of them has a reason."""
    found = {}
    rank = dist.get_rank()
    setup = Setup()
    batches = list(setup.loader)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LRFinderWarning)
        short = setup.find(iter(batches[: 5 if rank == 1 else 8]), num_iter=20)
    found["one rank's data end"] = [short.stop_reason.value, len(short.lrs), short.steps]

    def nan_at_fifth(model, batch):
        loss = setup.criterion(model(batch[0]), batch[1])
        return loss * float("nan") if rank == 1 and setup.net.calls == 5 else loss

    calls, setup.net.calls = setup.net.calls, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LRFinderWarning)
        nan = setup.find(finder=setup.finder(loss_fn=nan_at_fifth))
    setup.net.calls = calls
    found["one rank's loss is NaN"] = [nan.stop_reason.value, len(nan.lrs), nan.stop_lr]
    found["bits"] = setup.bits() == Setup().bits()
    return found


def lagging():
    """Losses are read three steps late, as on an accelerator: the same points, the same stop, the same faults."""
    with mock.patch("lrfinder.search.LossQueue", functools.partial(LossQueue, lag=3)):
        measured, own = result("ddp"), decisions()
        setup, found = Setup(), {}
        with unchanged(setup, found):
            found["raised"] = outcome(fault_in("on_step", setup))
    return {"losses": measured["losses"], "points": len(measured["points"]), "decisions": own} | found


def closures():
    """An optimizer that evaluates the loss several times a step."""
    found = {}
    setup = Setup(optimizer=functools.partial(torch.optim.LBFGS, max_iter=3))
    with unchanged(setup, found):
        found["losses"] = setup.find(start_lr=1e-3, end_lr=0.1, num_iter=6).losses.tolist()
    return found


def different_ways():
    """One rank goes through the model more often than the others."""
    setup = Setup()

    def loss_fn(model, batch):
        if dist.get_rank() == 1 and setup.net.calls > 2:
            model(batch[0])
        return setup.criterion(model(batch[0]), batch[1])

    return outcome(lambda: setup.find(finder=setup.finder(loss_fn=loss_fn)))


def epochs():
    """Which samples a rank gets: those of its sampler's epoch, then of the next."""
    setup = Setup(size=64)
    setup.sampler.set_epoch(4)
    wanted = list(setup.sampler)
    setup.sampler.set_epoch(5)
    wanted += list(setup.sampler)
    setup.sampler.set_epoch(4)
    inputs = setup.loader.dataset.tensors[0]
    seen = Notes()

    def loss_fn(model, batch):
        for row in batch[0]:
            seen.append(int((inputs == row).all(1).nonzero()))
        return setup.criterion(model(batch[0]), batch[1])

    result = setup.find(finder=setup.finder(loss_fn=loss_fn), num_iter=len(wanted) // 8)
    points = result.context.epoch_points
    return {"seen": list(seen), "wanted": wanted, "epoch": setup.sampler.epoch, "epoch points": points}


def uneven_epochs():
    """Each rank has another number of batches, and refine's short trainings are the same on all."""
    setup = Setup()
    batches = list(setup.loader)
    rank = dist.get_rank()
    options = {"num_iter": 20, "refine": 40, "total_steps": 10}
    cases = {
        "with a val_loader": (5 + rank, {"val_loader": batches[8:10]}),
        "with val_loaders of different lengths": (5 + rank, {"val_loader": batches[8 : 10 + rank]}),
        "too few batches to hold any out": (3 + rank, {}),
        "more batches on rank 0": (20 - 16 * rank, {}),
    }
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LRFinderWarning)
        for case, (count, more) in cases.items():
            result = setup.find(batches[:count], **options, **more)
            found[case] = {"epoch points": result.context.epoch_points, "probes": [list(p) for p in result.probes]}
    return found


def validation():
    own, found = Notes(), {}
    setup = Setup()
    rank = dist.get_rank()
    held_out = list(setup.loader)[-3:]

    def loss_fn(model, batch):
        loss = setup.criterion(model(batch[0]), batch[1])
        if not model.training:
            own.append(float(loss.detach()))
        return loss

    with unchanged(setup, found):
        result = setup.find(finder=setup.finder(loss_fn=loss_fn), val_loader=held_out, num_iter=6)

    def fails_on_held_out(model, batch):
        if rank == 1 and not model.training:
            raise Fault("not this one")
        return loss_fn(model, batch)

    finder = setup.finder(loss_fn=fails_on_held_out)
    with unchanged(setup, found):
        found["fault"] = outcome(lambda: setup.find(finder=finder, val_loader=held_out))
    return found | {"own": own[1 : 1 + 3 * 6], "losses": result.losses.tolist()}


def refining_ddp():
    return refining("ddp")


def refining_fsdp():
    return refining("fsdp")


def refining(kind):
    """Short trainings that go through the loader more than once, scored on batches that they leave out."""
    found = {}
    options = {"end_lr": 10.0, "num_iter": 20, "total_steps": 36, "refine": True}

    def find(setup):
        with warnings.catch_warnings(), unchanged(setup, found):
            warnings.simplefilter("ignore", LRFinderWarning)
            result = setup.find(**options)
        found.update(probes=result.probes, rule=result.suggestion.rule, reason=result.suggestion.reason)

    return {"same training": same_training(kind, test=find), **found}


def scaler_ddp():
    return scaler("ddp")


def scaler_fsdp():
    return scaler("fsdp")


def scaler(kind):
    """One rank's gradient overflows at some steps: every rank skips them."""
    found = {}
    setup = Setup(kind)
    grad_scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    seen = [0]

    def overflow(inputs):
        seen[0] += 1
        if dist.get_rank() == 1 and seen[0] in {1, 2, 6}:
            inputs.register_hook(lambda gradient: gradient * float("inf"))
        return inputs

    setup.net.fault = overflow
    with unchanged(setup, found):
        result = setup.find(finder=setup.finder(grad_scaler=grad_scaler), num_iter=10)
    return found | {"indices": result.curve.indices.tolist(), "steps": result.steps, "scale": grad_scaler.get_scale()}


def arguments():
    rank = dist.get_rank()
    setup = Setup()
    found = {"not allowed": outcome(lambda: setup.find(num_iter=2 if rank == 1 else 10))}
    found["not the same"] = outcome(lambda: setup.find(num_iter=10 + rank))
    found["empty"] = outcome(lambda: setup.find([] if rank == 1 else None))
    found["no gradient"] = outcome(
        lambda: setup.find(finder=setup.finder(loss_fn=lambda model, batch: _loss(setup, batch, detach=rank == 1)))
    )
    found["works again"] = len(setup.find().lrs)
    return found


def _loss(setup, batch, *, detach):
    loss = setup.criterion(setup.model(batch[0]), batch[1])
    return loss.detach() if detach else loss


class FaultyLoader:
    """Raises on one rank instead of giving its fourth batch."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        for index, batch in enumerate(self.loader):
            if index == 3 and dist.get_rank() == 1:
                raise Fault("loader")
            yield batch


class Countdown:
    """Raises on one rank at its fourth call, from wherever it is called."""

    def __init__(self, message, ranks=(1,)):
        self.left = 4
        self.message = message
        self.ranks = ranks

    def __call__(self, *arguments):
        self.left -= 1
        if self.left == 0 and dist.get_rank() in self.ranks:
            raise Fault(self.message)
        return arguments[0]


def fault_in(place, setup):
    """Return a call of find() in which rank 1 fails at `place`."""
    countdown = Countdown(place)
    if place == "loader":
        return lambda: setup.find(FaultyLoader(setup.loader))
    if place == "forward":
        hook = setup.net.blocks[2].register_forward_pre_hook(lambda module, inputs: countdown(inputs))
        return lambda: _and_then(setup.find, hook.remove)
    if place == "before the model":
        return lambda: setup.find(finder=setup.finder(loss_fn=lambda m, b: setup.criterion(m(countdown(b[0])), b[1])))
    if place == "loss":
        return lambda: setup.find(finder=setup.finder(loss_fn=lambda m, b: countdown(setup.criterion(m(b[0]), b[1]))))
    if place == "optimizer":
        hook = setup.optimizer.register_step_post_hook(lambda *arguments: countdown(None))
        return lambda: _and_then(setup.find, hook.remove)
    return lambda: setup.find(on_step=countdown)


def _and_then(call, finish):
    try:
        call()
    finally:
        finish()


def faults():
    """A rank fails outside of any collective: all restore, and the group goes on working."""
    reference = Setup()
    wanted = reference.train(4), reference.bits()
    report = {}
    for place in FAULTS:
        found = {}
        setup = Setup()
        call = fault_in(place, setup)
        with unchanged(setup, found):
            found["raised"] = outcome(call)
        found["changed"] = [path for path in found["changed"] if "hooks" not in path]
        found["points"] = len(setup.find().lrs)
        found["same training"] = (setup.train(4), setup.bits()) == wanted
        report[place] = found
    return report


def partial():
    """After a fault all ranks hold the same points."""
    setup = Setup()
    finder = setup.finder()
    raised = outcome(lambda: setup.find(FaultyLoader(setup.loader), finder=finder))
    return {"raised": raised, "losses": finder.partial.losses.tolist()}


def released():
    """A find that has failed keeps neither the model nor the optimizer alive."""
    Setup()  # the first optimizer of a process imports torch's compiler, which keeps the frames that led there
    gc.collect()
    gc.disable()
    try:
        references, raised = _fail_in_the_loader()
        return {"raised": raised, "alive": [str(type(each())) for each in references if each() is not None]}
    finally:
        gc.enable()


def _fail_in_the_loader():
    setup = Setup()
    raised = outcome(lambda: setup.find(FaultyLoader(setup.loader)))
    return [weakref.ref(setup.model), weakref.ref(setup.optimizer)], raised


def fresh_buckets():
    """After a fault in a backward pass, the buckets are new and hold the same parameters."""
    setup = Setup()
    setup.train(4)
    reducer, buckets = setup.model.reducer, _buckets(setup)
    _fail_backward(setup, tuple(range(dist.get_world_size())))
    fresh = setup.model.reducer is not reducer
    setup.train(4)
    return {"fresh": fresh, "before": buckets, "after": _buckets(setup)}


def _buckets(setup):
    return setup.model._get_ddp_logging_data()["rebuilt_per_bucket_param_indices"]


def common_fault_ddp():
    """All ranks fail at the same place of a backward pass, as with a bug in the model: the group survives."""
    everyone = tuple(range(dist.get_world_size()))
    return {
        f"{kind} after {before} steps": same_training(kind, before, test=lambda setup: _fail_backward(setup, everyone))
        for kind in ("ddp", "view")
        for before in (0, 3)
    }


def common_fault_fsdp():
    everyone = tuple(range(dist.get_world_size()))
    return {
        f"{where.__name__} after {before} steps": same_training(
            "fsdp", before, test=lambda setup, where=where: where(setup, everyone)
        )
        for where, before in ((_fail_forward, 2), (_fail_backward, 0), (_fail_backward, 2), (_fail_loss, 0))
    }


def _fail_backward(setup, ranks):
    countdown = Countdown("backward", ranks)
    setup.net.fault = lambda inputs: (inputs.register_hook(countdown), inputs)[1]
    _expect_fault(setup, setup.finder())


def _fail_forward(setup, ranks):
    countdown = Countdown("forward", ranks)
    setup.net.fault = lambda inputs: countdown(inputs)  # noqa: PLW0108 - the countdown is no state of the model
    _expect_fault(setup, setup.finder())


def _fail_loss(setup, ranks):
    countdown = Countdown("loss", ranks)
    _expect_fault(setup, setup.finder(loss_fn=lambda m, b: countdown(setup.criterion(m(b[0]), b[1]))))


def _expect_fault(setup, finder):
    try:
        with pytest.raises(Fault):
            setup.find(finder=finder)
    finally:
        setup.net.fault = None


def full_weights_fsdp():
    """A forward pass without gradients leaves the root with full weights: find() starts from shards all the same."""
    found = {}
    held_out = [dataset()[:8], dataset()[8:16]]

    def evaluate_and_find(setup):
        setup.model.eval()
        with torch.no_grad():
            setup.model(held_out[0][0])
        setup.net.calls -= 1
        setup.model.train()
        setup.find(val_loader=held_out)
        found["held"] = sum(p._local_tensor.numel() for p in setup.model.parameters())
        found["in all"] = sum(p.numel() for p in setup.model.parameters())
        with mock.patch("lrfinder.snapshot.snapshot.RandomStreams"):
            found["bytes copied"] = bytes_copied(Snapshot([setup.net.blocks[0].linear]))

    found["same training"] = same_training("fsdp", 1, test=evaluate_and_find)
    return found


def own_group(name, seconds):
    """Begin with a new process group, which may die: collectives that a rank does not come to end by its timeout."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if dist.is_initialized():
        dist.destroy_process_group()
    store = dist.FileStore(f"{sys.argv[1]}/store {name}", size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=seconds))
    dist.barrier()  # connections are made by the first collective
    return store


def destroyed():
    """The process group is destroyed straight after a find, many times."""
    points = []
    for index in range(8):
        own_group(f"to destroy {index}", seconds=20)
        points.append(len(Setup().find(num_iter=5).lrs))
        dist.destroy_process_group()
    return points


def inside_ddp():
    return inside_collectives("ddp", "backward", "step")


def inside_fsdp():
    return inside_collectives("fsdp", "forward", "backward")


def inside_collectives(kind, *places):
    """Rank 1 fails inside of a collective but stays alive: the others are released by the timeout."""
    report = {}
    for place in places:
        own_group(f"{kind} {place}", seconds=2)
        report[place] = inside(kind, place)
    return report


def inside(kind, place):
    found = {}
    setup = Setup(kind)
    setup.train(1)
    finder = setup.finder(step=_user_step(setup)) if place == "step" else setup.finder()
    if place != "step":
        countdown = Countdown(place)
        setup.net.fault = lambda x: countdown(x) if place == "forward" else (x.register_hook(countdown), x)[1]
    with unchanged(setup, found):
        found["raised"] = outcome(lambda: setup.find(finder=finder))
    return found


def _user_step(setup):
    countdown = Countdown("step")

    def step(batch):
        setup.optimizer.zero_grad()
        loss = setup.criterion(setup.model(batch[0]), batch[1])
        countdown(None)
        loss.backward()
        setup.optimizer.step()
        return loss.detach()

    return step


def missing_rank():
    """Only rank 0 calls find."""
    store = own_group("of one", seconds=2)
    if dist.get_rank() == 1:
        store.wait(["done"], timedelta(seconds=20))
        return None
    found = outcome(Setup("single").find)
    store.set("done", "")
    return found


def interrupted():
    """Ctrl-C arrives at one rank, in the middle of a step."""
    found = {}
    setup = Setup()
    if dist.get_rank() == 1:
        hook = setup.net.register_forward_hook(_interrupt)
    with unchanged(setup, found):
        try:
            setup.find()
        except (KeyboardInterrupt, RankError) as error:
            found["raised"] = [type(error).__name__, str(error)]
    if dist.get_rank() == 1:
        hook.remove()
    return found | {"works again": len(setup.find().lrs)}


def _interrupt(module, inputs, output):
    if module.calls == 3:
        signal.raise_signal(signal.SIGINT)


def exit_inside():
    """Rank 1 fails inside of a collective and leaves: the others are released by its exit."""
    own_group("of exit", seconds=20)
    return inside("ddp", "backward")


def suggestion():
    """Two ranks see together what one process sees with twice the batch."""
    batch = 32 // (dist.get_world_size() if dist.is_initialized() else 1)
    kind = "ddp" if dist.is_initialized() else "single"
    setup = Setup(kind, batch=batch, size=1024, plain=True)
    found = setup.find(start_lr=None, end_lr=None, num_iter=60, total_steps=500)
    return {"suggestion": found.suggestion.lr, "lrs": found.lrs.tolist(), "stop_reason": found.stop_reason.value}
