"""A finder for prepared objects: it trains as Accelerate's loop does, and leaves nothing behind."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

pytest.importorskip("accelerate", reason="needs accelerate: pip install 'lrfinder[accelerate]'")

from accelerate import Accelerator
from accelerate.utils import DistributedType, GradientAccumulationPlugin

from lrfinder import ArgumentError, LRFinder
from lrfinder.integrations.accelerate import captured, finder_for
from tests.fingerprint import Fingerprint, differences, process_state
from tests.integrations.accelerated import HAS_FSDP2, Setup, reset
from tests.integrations.two_processes import launch

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")

SWEEP = {"start_lr": 1e-4, "end_lr": 1e-1, "num_iter": 8, "progress": False}


@pytest.fixture(autouse=True)
def _accelerate_is_new():
    yield
    reset()


def overflowing():
    return torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=3)


KINDS = {
    "plain": dict,
    "accumulating and clipping": lambda: {"accumulation": 3, "max_grad_norm": 0.1},
    "bf16": lambda: {"mixed_precision": "bf16"},
    "scaler": lambda: {"scaler": torch.amp.GradScaler("cpu", init_scale=2.0**8), "max_grad_norm": 0.1},
    "scaler that finds its scale": lambda: {"scaler": overflowing(), "accumulation": 2},
    "workers": lambda: {"loader": {"num_workers": 1}},
    "persistent workers": lambda: {"loader": {"num_workers": 1, "persistent_workers": True}},
}


@pytest.fixture(params=list(KINDS))
def kind(request):
    return KINDS[request.param]


def test_training_after_a_find_is_training_without(kind):
    expected = Setup(**kind()).train()
    reset()
    setup = Setup(**kind())
    before, everything = process_state(), Fingerprint(**setup.parts())
    result = setup.finder().find(setup.loader, **SWEEP)
    assert differences(before, process_state()) == []
    assert differences(everything.values, Fingerprint(**setup.parts()).values) == []
    assert len(result.lrs) > 0
    assert setup.train() == expected


def test_in_the_middle_of_an_epoch_and_of_an_accumulation(kind):
    """The loop holds the loader open, has left gradients behind, and `sync_gradients` off."""

    def interrupted(*, find):
        reset()
        setup = Setup(**{**kind(), "accumulation": 3})
        losses = []
        for index, batch in enumerate(setup.loader):
            losses.append(setup.batch(*batch))
            if index == 3 and find:
                everything = Fingerprint(**setup.parts())
                setup.finder().find(setup.loader, **SWEEP)
                assert setup.accelerator.gradient_state.active_dataloader is setup.loader
                assert differences(everything.values, Fingerprint(**setup.parts()).values) == []
        return losses, setup.train()

    assert interrupted(find=True) == interrupted(find=False)


class Fault(Exception):
    pass


@pytest.mark.parametrize("call", [1, 2, 9])
@pytest.mark.parametrize("place", ["forward", "backward", "step", "clip"])
@pytest.mark.parametrize("error", [Fault, KeyboardInterrupt])
def test_training_after_a_fault_is_training_without(place, call, error, monkeypatch):
    kind = {"scaler": torch.amp.GradScaler("cpu", init_scale=2.0**8), "max_grad_norm": 0.1, "accumulation": 2}
    expected = Setup(**{**kind, "scaler": torch.amp.GradScaler("cpu", init_scale=2.0**8)}).train()
    reset()
    setup = Setup(**kind)
    owner, name = {
        "forward": (nn.CrossEntropyLoss, "forward"),
        "backward": (torch.Tensor, "backward"),
        "step": (type(setup.optimizer.optimizer), "_init_group"),
        "clip": (torch.nn.utils, "clip_grad_norm_"),
    }[place]
    method, calls = getattr(owner, name), []

    def faulty(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            raise error
        return method(*args, **kwargs)

    before, everything = process_state(), Fingerprint(**setup.parts())
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, faulty)
        with pytest.raises(error):
            setup.finder().find(setup.loader, **{**SWEEP, "num_iter": 10})
    assert differences(before, process_state()) == []
    assert differences(everything.values, Fingerprint(**setup.parts()).values) == []
    assert setup.train() == expected


@pytest.mark.parametrize("scale", [None, 2.0**8])
def test_a_step_is_one_of_the_frameworks_loop(scale):
    """At one rate, without a sweep's changes to it: the losses are those of the loop, averaged over a step."""
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    setup = Setup(accumulation=2, max_grad_norm=0.1, optimizer=torch.optim.SGD, scaler=scaler)
    result = setup.finder().find(setup.loader, start_lr=3.0, end_lr=3.00001, num_iter=5, progress=False)
    setup.optimizer.param_groups[0]["lr"] = 3.0
    losses = setup.train(epochs=1)[0]
    means = [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)]
    assert result.losses.tolist() == pytest.approx(means, rel=1e-3)
    assert result.meta["accumulation_steps"] == 2


def test_skipped_steps_are_gaps():
    """While the scaler halves its scale, steps are tried again; one that is skipped later leaves a gap."""
    setup = Setup(scaler=overflowing())
    result = setup.finder().find(setup.loader, **SWEEP)
    assert setup.accelerator.scaler.get_scale() == 2.0**24
    assert 1 <= len(result.lrs) <= 8
    assert result.lrs[0] == 1e-4
    assert result.steps > 8


def test_held_out_loss_and_own_loss():
    setup = Setup(accumulation=2)
    finder = finder_for(
        setup.accelerator,
        setup.model,
        setup.optimizer,
        loss_fn=lambda model, batch: setup.criterion(model(batch[0]), batch[1]),
    )
    everything = Fingerprint(**setup.parts())
    assert finder.find(setup.loader, **SWEEP, val_loader=setup.loader, val_batches=2).context.val
    refined = finder.find(
        setup.loader, start_lr=1e-4, end_lr=100.0, num_iter=40, total_steps=100, refine=True, progress=False
    )
    assert refined.probes
    assert differences(everything.values, Fingerprint(**setup.parts()).values) == []


def test_a_closure_reaches_the_optimizer_inside():
    setup = Setup()
    inner = torch.optim.LBFGS(setup.model.parameters(), lr=0.1, max_iter=2)
    optimizer = setup.accelerator.prepare(inner)
    finder = finder_for(setup.accelerator, setup.model, optimizer, setup.criterion)
    setup.accelerator.sync_gradients = False  # as in the middle of an accumulation
    everything = Fingerprint(**setup.parts(), lbfgs=optimizer)
    assert len(finder.find(setup.loader, **SWEEP).lrs) > 0
    assert differences(everything.values, Fingerprint(**setup.parts(), lbfgs=optimizer).values) == []


def test_every_micro_batch_may_be_synchronised():
    plugin = GradientAccumulationPlugin(num_steps=2, sync_each_batch=True)
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_plugin=plugin)
    model = nn.Linear(3, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    finder = finder_for(accelerator, model, optimizer, nn.MSELoss())
    result = finder.find([(torch.randn(4, 3), torch.randn(4, 1))], **SWEEP)
    assert len(result.lrs) == 8


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.randn(6), torch.randint(2, ())


def test_a_stream_and_a_loader_that_is_not_prepared():
    setup = Setup()
    stream = setup.accelerator.prepare(DataLoader(Endless(), batch_size=4))
    plain = DataLoader(TensorDataset(torch.randn(12, 6), torch.randint(2, (12,))), batch_size=4)
    for loader in (stream, plain):
        everything = Fingerprint(**setup.parts())
        assert len(setup.finder().find(loader, **SWEEP).lrs) == 8
        assert differences(everything.values, Fingerprint(**setup.parts()).values) == []


def test_the_list_of_what_is_captured():
    setup = Setup()
    assert captured(setup.accelerator) == (setup.accelerator, setup.accelerator.gradient_state)
    assert isinstance(setup.finder(), LRFinder)


def test_two_processes(tmp_path):
    """With `DistributedDataParallel` and with FSDP2, through Accelerate alone and through a Trainer."""
    pytest.importorskip("transformers", reason="needs transformers: pip install 'lrfinder[transformers]'")
    reports = launch(tmp_path)
    for rank, report in enumerate(reports):
        assert report.pop("log") == "", report
        assert report.get("transformers fsdp2: trains as without, sharded by the find", not HAS_FSDP2)
        for name in ("accelerate", "transformers", *(["accelerate fsdp2", "transformers fsdp2"] if HAS_FSDP2 else [])):
            assert report[f"{name}: left behind"] == []
            assert report[f"{name}: trains as without"]
            assert report[f"{name}: trains as without, after a fault"]
            assert report[f"{name}: losses"] == reports[0][f"{name}: losses"]
            assert len(report[f"{name}: losses"]) == 6
            assert report[f"{name}: fault"] == ("Fault" if "fsdp2" in name else ("RankError", "Fault")[rank])
            assert report[f"{name}: world size"] == 2


# What is refused


@pytest.mark.parametrize("option", ["accumulation_steps", "backward", "device", "grad_scaler", "step"])
def test_what_the_accelerator_decides(option):
    with pytest.raises(ArgumentError, match=rf"finder_for\({option}=...\) is the accelerator's to decide, got 3"):
        Setup().finder(**{option: 3})


@pytest.mark.parametrize("name", ["DEEPSPEED", "FSDP", "MEGATRON_LM", "XLA"])
def test_error_for_strategies_that_keep_parameters_elsewhere(name, monkeypatch):
    setup = Setup()
    monkeypatch.setitem(setup.accelerator.state._shared_state, "distributed_type", DistributedType[name])
    with pytest.raises(ArgumentError, match=f"finder_for works on one device, .* got an accelerator for {name}"):
        setup.finder()


def test_a_model_is_prepared_if_the_accelerator_holds_it():
    """Before accelerate 1.14 a model in DistributedDataParallel has no mark of its own."""
    setup = Setup()
    vars(setup.model).pop("_is_accelerate_prepared", None)
    wrapped = nn.ModuleDict({"module": setup.model})
    vars(wrapped)["module"] = setup.model
    finder_for(setup.accelerator, wrapped, setup.optimizer)
    finder_for(setup.accelerator, setup.model, setup.optimizer)


def test_error_for_what_is_not_prepared():
    setup = Setup()
    model = nn.Linear(6, 2)
    with pytest.raises(ArgumentError, match=r"finder_for\(model=...\) must be what accelerator.prepare"):
        finder_for(setup.accelerator, model, setup.optimizer)
    with pytest.raises(ArgumentError, match=r"finder_for\(optimizer=...\) must be .* got a AdamW that is not prepared"):
        finder_for(setup.accelerator, setup.model, setup.optimizer.optimizer)
    with pytest.raises(ArgumentError, match=r"finder_for\(accelerator=...\) must be an Accelerator, got Linear"):
        finder_for(model, setup.model, setup.optimizer)
