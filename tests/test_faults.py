"""Nothing is left behind either when something goes wrong, wherever it does and whatever is raised."""

import gc
import itertools
import signal
import sys
import weakref
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Sampler

import lrfinder
from lrfinder import RangeTestResult, StopReason
from tests.fingerprint import Fingerprint, differences, process_state
from tests.notes import Notes
from tests.problems import Augmented, Setup, build, mlp, one_thread, plain, seed_all, vectors  # noqa: F401 - applies by being imported

pytestmark = pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")


class Fault(Exception):
    """What the user's code raises."""


class FaultBase(BaseException):
    """Something that no `except Exception` holds up."""


class Bomb:
    """Called at one place of the training; raises `error` at the call that it is armed for.

    Its count is kept in a `Notes`, so that it is neither compared nor put back.
    """

    __slots__ = ("_notes",)

    def __init__(self):
        self._notes = Notes()
        self.disarm()

    def arm(self, at, error):
        self._notes.clear()
        self._notes.append((at, error))

    def disarm(self):
        self.arm(None, None)

    @property
    def calls(self):
        return len(self._notes) - 1

    @property
    def error(self):
        return self._notes[0][1]

    def __call__(self):
        self._notes.append(None)
        at, error = self._notes[0]
        if self.calls == at:
            raise error


# Places: each takes a bomb and returns a training that calls it there.

PLACES = {}


def place(function):
    PLACES[function.__name__] = function
    return function


def training(**parts) -> Setup:
    """Return a training with a little of everything: dropout, batch norm, momentum, augmentation, a generator."""
    parts.setdefault("model", nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3)))
    parts.setdefault("loader", loader())
    setup = plain(torch.device("cpu"), parts.pop("loader"), **parts)
    setup.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(setup.optimizer, T_max=50)
    return setup


def loader(data=None, **options) -> DataLoader:
    data = Augmented(vectors()) if data is None else data
    options.setdefault("generator", torch.Generator().manual_seed(4))
    return DataLoader(data, batch_size=8, **({"shuffle": True} if "sampler" not in options else {}), **options)


class Trapped:
    """A data set, or anything else that is indexed, with a bomb."""

    def __init__(self, data, bomb):
        self.data, self.bomb = data, bomb

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        self.bomb()
        return self.data[index]


@place
def in_the_data_set(bomb):
    return training(loader=loader(Trapped(Augmented(vectors()), bomb)))


@place
def in_the_sampler(bomb):
    class Order(Sampler):
        def __init__(self):
            self.generator = torch.Generator().manual_seed(2)

        def __iter__(self):
            for index in torch.randperm(32, generator=self.generator).tolist():
                bomb()
                yield index

    return training(loader=loader(sampler=Order()))


@place
def while_collating(bomb):
    def collate(samples):
        bomb()
        return torch.utils.data.default_collate(samples)

    return training(loader=loader(collate_fn=collate))


@place
def at_the_start_of_an_epoch(bomb):
    class Batches:
        def __init__(self):
            self.loader = loader()

        def __iter__(self):
            bomb()
            return iter(self.loader)

    return training(loader=Batches())


@place
def in_the_forward_pass(bomb):
    class Middle(nn.Module):
        def forward(self, x):
            bomb()
            return x

    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Middle(), nn.Dropout(0.2), nn.Linear(8, 3))
    return training(model=model)


def _hooked(register, bomb):
    setup = training()
    register(setup, lambda *_: bomb())
    return setup


@place
def in_a_forward_pre_hook(bomb):
    return _hooked(lambda setup, hook: setup.model[3].register_forward_pre_hook(hook), bomb)


@place
def in_a_forward_hook(bomb):
    return _hooked(lambda setup, hook: setup.model[1].register_forward_hook(hook), bomb)


@place
def in_a_backward_hook_of_a_module(bomb):
    return _hooked(lambda setup, hook: setup.model[1].register_full_backward_hook(hook), bomb)


@place
def in_a_hook_of_a_tensor(bomb):
    return _hooked(lambda setup, hook: setup.model[0].weight.register_hook(hook), bomb)


@place
def after_a_gradient_was_accumulated(bomb):
    return _hooked(lambda setup, hook: setup.model[3].weight.register_post_accumulate_grad_hook(hook), bomb)


@place
def in_backward(bomb):
    class Pass(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            bomb()
            return grad

    class Passing(nn.Module):
        def forward(self, x):
            return Pass.apply(x)

    return training(model=nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Passing(), nn.Linear(8, 3)))


@place
def in_the_loss(bomb):
    class Loss(nn.CrossEntropyLoss):
        def forward(self, outputs, targets):
            loss = super().forward(outputs, targets)
            bomb()
            return loss

    return training(criterion=Loss())


@place
def in_loss_fn(bomb):
    def loss_fn(model, batch):
        inputs, targets = batch
        outputs = model(inputs)
        bomb()
        return F.cross_entropy(outputs, targets)

    return training(criterion=None, loss_fn=loss_fn)


@place
def in_a_backward_of_the_user(bomb):
    def backward(loss):
        loss.backward(retain_graph=True)
        bomb()
        (0.1 * loss).backward()

    return training(options={"backward": backward})


@place
def before_the_optimizer_step(bomb):
    return _hooked(lambda setup, hook: setup.optimizer.register_step_pre_hook(hook), bomb)


@place
def after_the_optimizer_step(bomb):
    return _hooked(lambda setup, hook: setup.optimizer.register_step_post_hook(hook), bomb)


class HalfWritten(torch.optim.Adam):
    """Writes parameters, state and attributes before the bomb goes off, and again after it."""

    def __init__(self, parameters, bomb):
        super().__init__(parameters, lr=1e-2)
        self.bomb, self.begun = bomb, 0

    @torch.no_grad()
    def step(self, closure=None):
        self.begun += 1
        first = self.param_groups[0]["params"][0]
        first.mul_(1.1)
        self.state[first]["touched"] = torch.ones(3)
        self.bomb()
        del self.state[first]["touched"]
        return super().step(closure)


@place
def in_the_middle_of_the_optimizer_step(bomb):
    return training(optimizer=lambda model: HalfWritten(model.parameters(), bomb))


@place
def between_closure_calls(bomb):
    class Loss(nn.CrossEntropyLoss):
        def forward(self, outputs, targets):
            bomb()
            return super().forward(outputs, targets)

    return training(
        optimizer=lambda model: torch.optim.LBFGS(model.parameters(), max_iter=3, history_size=2), criterion=Loss()
    )


@place
def in_a_step_with_a_scaler(bomb):
    setup = training(options={"grad_scaler": torch.amp.GradScaler("cpu"), "max_grad_norm": 1.0})
    setup.optimizer.register_step_pre_hook(lambda *_: bomb())
    return setup


def _fused_with_scaler(bomb, **options):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return training(
        optimizer=lambda model: torch.optim.Adam(model.parameters(), fused=True),
        options={"grad_scaler": scaler, **options},
    )


@place
def before_a_fused_step_with_a_scaler(bomb):
    """The scaler has left `grad_scale` and `found_inf` on the optimizer by then."""
    setup = _fused_with_scaler(bomb)
    setup.optimizer.register_step_pre_hook(lambda *_: bomb())
    return setup


@place
def after_a_fused_step_with_a_scaler(bomb):
    setup = _fused_with_scaler(bomb, max_grad_norm=1.0)
    setup.optimizer.register_step_post_hook(lambda *_: bomb())
    return setup


@place
def in_the_middle_of_an_accumulation(bomb):
    class Loss(nn.CrossEntropyLoss):
        def forward(self, outputs, targets):
            bomb()
            return super().forward(outputs, targets)

    return training(criterion=Loss(), options={"accumulation_steps": 3})


def _own_step(bomb, where):
    setup = training(model=mlp())
    critic = nn.Linear(3, 1)
    critics = torch.optim.Adam(critic.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(critics, 3)

    def step(batch):
        inputs, targets = batch
        setup.optimizer.zero_grad()
        critics.zero_grad()
        outputs = setup.model(inputs)
        loss = F.cross_entropy(outputs, targets) + 0.1 * critic(outputs).mean()
        loss.backward()
        critics.step()
        if where == "between two optimizers":
            bomb()
        setup.optimizer.step()
        scheduler.step()
        if where == "at the end":
            bomb()
        return loss.detach()

    more = {"critic": critic, "critics": critics, "critics' scheduler": scheduler}
    return Setup(
        model=setup.model,
        optimizer=setup.optimizer,
        loader=setup.loader,
        step=step,
        options={"extra_state": [*more.values()]},
        more=more,
    )


@place
def between_two_optimizers(bomb):
    return _own_step(bomb, "between two optimizers")


@place
def at_the_end_of_a_step_of_the_user(bomb):
    return _own_step(bomb, "at the end")


@place
def under_autocast(bomb):
    setup = in_the_forward_pass(bomb)
    setup.options = {"autocast": torch.bfloat16}
    return setup


@place
def in_a_lazily_built_layer(bomb):
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.calls = mlp(), []

        def forward(self, x):
            self.calls.append(len(x))
            if not hasattr(self, "scale"):
                self.register_buffer("scale", torch.ones(6))
                self.helper = nn.Linear(6, 6)
            bomb()
            return self.body(self.helper(x).detach() * self.scale)

    return training(model=Lazy())


SHORT = {"num_iter": 6}
ERRORS = [Fault, KeyboardInterrupt, SystemExit, FaultBase, GeneratorExit, StopIteration, MemoryError]
# What ends an iterator is no error where it comes out of one, in the user's training neither.
IN_LOADERS = [error for error in ERRORS if error not in {StopIteration, GeneratorExit}]


def look(setup):
    return Fingerprint(**setup.parts()), process_state()


def assert_same_state(before, after):
    assert differences(before[0].values, after[0].values) == []
    assert differences(before[1], after[1]) == []


def assert_unchanged(caught, error):
    """The very object that was raised, without a trace of ours but in the traceback."""
    assert caught is error
    assert caught.__cause__ is None
    assert caught.__context__ is None
    assert not getattr(caught, "__notes__", None)


def find_with_fault(setup, bomb, at, error, **arguments):
    """Run into the fault and check all that holds after it; return the finder."""
    finder, points = setup.finder(), []

    def on_step(*point):
        points.append(point)
        if arguments.get("on_step") is not None:
            arguments["on_step"](*point)

    before = look(setup)
    bomb.arm(at, error)
    with pytest.raises(type(error)) as caught:
        setup.find(finder=finder, **{**SHORT, **arguments, "on_step": on_step})
    bomb.disarm()
    assert_same_state(before, look(setup))
    assert_unchanged(caught.value, error)
    assert isinstance(finder.partial, RangeTestResult)
    complete = len(points) == SHORT["num_iter"]  # `on_step` raised on the last one, or a later repeat was broken off
    for text in (str(finder.partial), repr(finder.partial)):
        assert ("finished" if complete else "interrupted") in text
    assert finder.partial.stop_reason is (StopReason.FINISHED if complete else None)
    if points or not arguments.get("scout"):  # with neither, they are the scout's
        assert finder.partial.lrs.tolist() == [lr for _, lr, _ in points]
    if len(points) < SHORT["num_iter"] and not arguments.get("scout"):  # else they may be a mean over repeats
        assert finder.partial.losses.tolist() == [loss for _, _, loss in points]
    return finder


def results(setup, finder=None, **arguments):
    """Return what a range test measures, and check that it clears `partial`."""
    finder = setup.finder() if finder is None else finder
    result = setup.find(finder=finder, **{**SHORT, **arguments})
    assert finder.partial is None
    return {**result.to_dict(), "seconds": None}


def assert_every_fault_is_undone(make, errors=ERRORS, *, stride=1, options=lambda setup, bomb: {}):
    """Fault at each call in turn; then find again, and train, as if nothing had been."""
    bomb = Bomb()
    seed_all(0)
    setup = make(bomb)
    arguments = options(setup, bomb)
    losses = setup.train(2)
    bomb.disarm()
    expected = results(setup, **arguments)
    calls = bomb.calls
    assert calls > 1
    places = sorted({*range(1, calls + 1, stride), calls // 2, calls})
    for turn, at in enumerate(places):
        finder = find_with_fault(setup, bomb, at, errors[turn % len(errors)]("boom"), **arguments)
        if at in {1, calls // 2, calls}:
            assert results(setup, finder, **arguments) == expected
    losses += setup.train(4)
    seed_all(0)
    without = make(bomb)
    options(without, bomb)
    assert losses == without.train(6)


def is_in_loader(name):
    return name in {"in_the_data_set", "in_the_sampler", "while_collating", "at_the_start_of_an_epoch"}


@pytest.mark.parametrize("name", PLACES)
def test_faults_in_the_sweep(name):
    stride = 7 if name in {"in_the_data_set", "in_the_sampler"} else 1
    assert_every_fault_is_undone(PLACES[name], IN_LOADERS if is_in_loader(name) else ERRORS, stride=stride)


@pytest.mark.parametrize("name", PLACES)
def test_faults_in_the_scout(name):
    stride = 23 if name in {"in_the_data_set", "in_the_sampler"} else 5
    assert_every_fault_is_undone(
        PLACES[name],
        IN_LOADERS if is_in_loader(name) else ERRORS,
        stride=stride,
        options=lambda setup, bomb: {"scout": True},
    )


@pytest.mark.parametrize("name", ["in_the_forward_pass", "in_the_loss", "in_the_middle_of_the_optimizer_step"])
def test_faults_in_repeats(name):
    assert_every_fault_is_undone(PLACES[name], options=lambda setup, bomb: {"repeats": 3})


@pytest.mark.parametrize("name", ["in_the_forward_pass", "in_the_loss", "in_loss_fn", "in_a_forward_hook"])
def test_faults_in_validation(name):
    """The model is in eval mode then."""

    def options(setup, bomb):
        return {"val_loader": [(torch.randn(8, 6), torch.arange(8) % 3) for _ in range(2)], "val_batches": 2}

    assert_every_fault_is_undone(PLACES[name], options=options)


@pytest.mark.parametrize("at", [1, 9, 16])
@pytest.mark.parametrize("error", IN_LOADERS)
def test_faults_while_the_validation_data_is_read(at, error):
    """Nothing has been measured then."""
    setup, bomb = build("own_generator"), Bomb()
    held_out = loader(Trapped(Augmented(vectors()), bomb))
    finder, before = setup.finder(), look(setup)
    bomb.arm(at, error("boom"))
    with pytest.raises(error) as caught:
        setup.find(finder=finder, val_loader=held_out, val_batches=2)
    assert_unchanged(caught.value, bomb.error)
    assert_same_state(before, look(setup))
    assert finder.partial is None


@pytest.mark.parametrize("scout", [False, True])
def test_faults_in_on_step(scout):
    """The point that it was called for was measured."""
    assert_every_fault_is_undone(
        lambda bomb: training(), options=lambda setup, bomb: {"on_step": lambda *_: bomb(), "scout": scout}
    )


@pytest.mark.parametrize("scout", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        "ordinary_objects", "closure_and_defaults", "partial_function", "callable_object", "method_of_an_own_trainer",
        "state_behind_hooks", "generator_of_a_class", "generators_in_the_data_set",
        "generator_of_the_collate_function", "new_generator_at_each_epoch", "legacy_sampler",
    ],
)  # fmt: skip
def test_faults_with_state_in_objects_functions_and_data_sets(name, scout):
    def make(bomb):
        setup = build(name)
        setup.model.register_forward_pre_hook(lambda *_: bomb())
        return setup

    assert_every_fault_is_undone(make, stride=7 if scout else 2, options=lambda setup, bomb: {"scout": scout})


class Breakable(Augmented):
    """Fails in a worker, from the moment on that it is told to."""

    def __init__(self, data):
        super().__init__(data)
        self.broken = torch.zeros(1).share_memory_()

    def __getitem__(self, index):
        if index == 17 and self.broken[0]:
            raise Fault("in a worker")
        return super().__getitem__(index)


@pytest.mark.parametrize("persistent", [False, True], ids=["workers", "persistent workers"])
@pytest.mark.parametrize("scout", [False, True])
def test_faults_in_a_worker(persistent, scout, monkeypatch):
    """torch raises a copy in the main process; the finder's own workers are ended, the user's live on."""
    # torch waits so long for a worker that has failed, 5 s otherwise.
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)

    def make():
        seed_all(0)
        return training(loader=loader(Breakable(vectors()), num_workers=1, persistent_workers=persistent))

    without = make()
    expected = without.epoch() + without.train(3)
    setup = make()
    losses = setup.epoch()
    gc.collect()
    before, finder, broken = look(setup), setup.finder(), setup.loader.dataset.broken
    broken.fill_(1)
    with pytest.raises(Fault, match="in a worker"):
        setup.find(finder=finder, scout=scout)
    broken.fill_(0)
    assert_same_state(before, look(setup))
    setup.find(scout=scout)
    assert_same_state(before, look(setup))
    assert losses + setup.train(3) == expected


@pytest.mark.parametrize("error", [Fault, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at", [1, 3, 6])
@pytest.mark.parametrize("persistent", [False, True], ids=["workers", "persistent workers"])
def test_no_worker_is_left_behind(persistent, at, error):
    setup, bomb = build("persistent_workers" if persistent else "workers"), Bomb()
    setup.model.register_forward_pre_hook(lambda *_: bomb())
    gc.collect()
    find_with_fault(setup, bomb, at, error("boom"))


@pytest.mark.parametrize("at", [1, 4])
def test_a_bar_is_closed(at, capsys):
    bomb = Bomb()
    find_with_fault(in_the_loss(bomb), bomb, at, Fault("boom"), progress=True)
    assert "LR range test" in capsys.readouterr().err


@pytest.mark.parametrize("error", ERRORS)
def test_gradients_that_were_there_come_back(error):
    bomb = Bomb()
    setup = in_backward(bomb)
    setup.loss(next(iter(setup.loader))).backward()
    gradients = [p.grad for p in setup.model.parameters()]
    find_with_fault(setup, bomb, 3, error("boom"))
    assert all(p.grad is grad for p, grad in zip(setup.model.parameters(), gradients, strict=True))


def test_an_error_from_within_an_except_clause_keeps_its_context():
    """What the user's code chained stays chained, and nothing is added."""
    setup = training()
    error, context = Fault("outer"), ValueError("inner")

    def fail(*_):
        try:
            raise context
        except ValueError:
            raise error  # noqa: B904 - the implicit context is what is tested

    setup.model.register_forward_pre_hook(fail)
    with pytest.raises(Fault) as caught:
        setup.find()
    assert caught.value is error
    assert error.__context__ is context
    assert context.__context__ is None


def test_a_failed_find_keeps_neither_the_model_nor_the_optimizer_alive():
    def fail():
        setup, bomb = plain(torch.device("cpu")), Bomb()
        bomb.arm(5, Fault)
        with suppress(Fault):  # pytest.raises would keep the error
            lrfinder.LRFinder(setup.model, setup.optimizer, setup.criterion).find(
                setup.loader, start_lr=1e-5, end_lr=1.0, progress=False, on_step=lambda *_: bomb()
            )
        assert bomb.calls == 5
        return [weakref.ref(setup.model), weakref.ref(setup.optimizer)]

    fail()  # the first optimizer of a process imports torch's compiler, which keeps the frames that led there
    gc.collect()
    gc.disable()
    try:
        assert [each() for each in fail()] == [None, None]
    finally:
        gc.enable()


def test_a_find_inside_an_except_clause():
    setup = training()
    outer = ValueError("before")
    try:
        raise outer
    except ValueError:
        setup.find()
    assert outer.__context__ is None


def test_an_error_on_losses_that_are_not_finite():
    """Code that raises on NaN ends the sweep, once the host knows of the NaN; here it has read each loss already."""
    bomb = Bomb()
    setup = in_the_forward_pass(bomb)
    finder = find_with_fault(setup, bomb, 5, Fault("NaN"))
    assert len(finder.partial.losses) == 4


# Interrupts, as signals


def interrupt(*_):
    signal.raise_signal(signal.SIGINT)


class Interrupting:
    """Extra state; Ctrl-C is pressed while it is captured, or put back."""

    def __init__(self):
        self.value, self.pressed_at, self.calls = 0, None, []

    def _called(self, name):
        self.calls.append(name)
        if name == self.pressed_at:
            interrupt()

    def state_dict(self):
        self._called("capture")
        return {"value": self.value}

    def load_state_dict(self, state):
        self._called("restore")
        self.value = state["value"]


def _interrupted(pressed_at):
    bomb, extra = Bomb(), Interrupting()
    setup = in_the_middle_of_the_optimizer_step(bomb)
    finder = setup.finder(extra_state=[extra])
    extra.pressed_at = pressed_at
    return setup, finder, bomb, extra


def test_an_interrupt_while_restoring():
    """The second Ctrl-C waits until all is restored."""
    setup, finder, bomb, _ = _interrupted("restore")
    before, first = look(setup), KeyboardInterrupt("first")
    bomb.arm(3, first)
    with pytest.raises(KeyboardInterrupt) as caught:
        setup.find(finder=finder)
    assert_same_state(before, look(setup))
    assert caught.value is not first
    assert caught.value.__context__ is first


def test_an_interrupt_while_restoring_after_a_sweep_that_went_well():
    setup, finder, _, _ = _interrupted("restore")
    before = look(setup)
    with pytest.raises(KeyboardInterrupt):
        setup.find(finder=finder)
    assert_same_state(before, look(setup))


def test_an_interrupt_between_scout_and_sweep():
    setup, finder, _, extra = _interrupted("restore")
    before = look(setup)
    with pytest.raises(KeyboardInterrupt):
        setup.find(finder=finder, scout=True)
    assert_same_state(before, look(setup))
    assert extra.calls.count("restore") == 2, "after the scout, and at the end"


def test_an_interrupt_while_capturing():
    setup, finder, _, extra = _interrupted("capture")
    for p in setup.model.parameters():
        p.grad = torch.ones_like(p)
    before = look(setup)
    with pytest.raises(KeyboardInterrupt):
        setup.find(finder=finder)
    assert_same_state(before, look(setup))
    extra.pressed_at = None
    assert len(setup.find(finder=finder).losses) == 8


def test_a_handler_of_the_user_is_kept():
    """A training that catches Ctrl-C itself keeps doing so, also where it is held back for a while."""
    received = []
    before = signal.signal(signal.SIGINT, lambda *_: received.append(1))
    try:
        setup, finder, _, extra = _interrupted("restore")
        state = look(setup)
        setup.find(finder=finder)
        assert received == [1] * extra.calls.count("restore")
        assert received
        assert_same_state(state, look(setup))
    finally:
        signal.signal(signal.SIGINT, before)


LIBRARY = str(Path(lrfinder.__file__).parent)


@contextmanager
def called_where_signals_arrive(function):
    """Call `function(place)` where Python looks for signals in the library: a call begins, or one to C has returned."""

    def profile(frame, event, _):
        if event in {"call", "c_return"} and frame.f_code.co_filename.startswith(LIBRARY):
            function(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {event}")

    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


def _places(find):
    """Return the places that are passed, each with the counts of its first and its last time."""
    first, last, count = {}, {}, itertools.count(1)

    def note(place):
        last[place] = next(count)
        first.setdefault(place, last[place])

    with called_where_signals_arrive(note):
        find()
    return {*((at, place) for place, at in first.items()), *((at, place) for place, at in last.items())}


def _is_interrupted(find, at):
    count = itertools.count(1)
    try:
        with called_where_signals_arrive(lambda _: interrupt() if next(count) == at else None):
            find()
    except KeyboardInterrupt:
        return True
    return False


# Python ignores what is raised where it closes a generator that is no longer used.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler is at work already")
@pytest.mark.parametrize("scout", [False, True])
def test_interrupts_anywhere(scout):
    """Ctrl-C anywhere in the library: at the first time that the place is passed, and at the last."""
    setup = in_the_middle_of_the_optimizer_step(Bomb())
    for p in setup.model.parameters():
        p.grad = torch.ones_like(p)

    def find():
        setup.find(num_iter=5, scout=scout)

    find()
    before, places = look(setup), sorted(_places(find))[5 if scout else 0 :: 15]  # all of them take a minute
    passed_over = []
    for at, place in places:
        if not _is_interrupted(find, at):
            passed_over.append(place)
        after = look(setup)
        changed = differences(before[0].values, after[0].values) + differences(before[1], after[1])
        assert not changed, f"left behind after an interrupt at {place}: {changed}"
    assert len(passed_over) < len(places) / 20
