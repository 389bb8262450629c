"""Modules that change themselves, replaced parameters, normed weights, criteria."""

import types
import warnings
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lrfinder import Snapshot
from tests.fingerprint import bits, bytes_copied
from tests.snapshot.promise import Watch, check, mlp, trainer


class Stateful(nn.Module):
    """A module that changes itself in every way known."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("replaced", torch.zeros(3))
        self.register_buffer("lazy", None)
        self.n = 0
        self.history = []
        self.recent = deque(maxlen=3)
        self.seen = set()
        self.stats = {"min": 0.0, "nested": {"list": [1, 2]}}
        self.array = np.zeros(3)
        self.cached = torch.zeros(2)
        self.teacher = [nn.Linear(4, 4)]
        self.noise = torch.Generator().manual_seed(5)
        self.rng = np.random.default_rng(1)
        self.space = types.SimpleNamespace(calls=0)

    def forward(self, inputs):
        self.n += 1
        self.count += 1
        self.replaced = self.replaced + 1
        if self.lazy is None:
            self.lazy = torch.ones(2)
        self.lazy += 1
        self.history.append(float(inputs.sum()))
        self.recent.append(self.n)
        self.seen.add(self.n)
        self.stats["nested"]["list"].append(self.n)
        self.stats["min"] = self.n
        self.stats[self.n] = 1
        self.array += self.rng.random(3)
        self.cached.copy_(inputs[0, :2])
        self.fresh = inputs
        self.space.calls += 1
        with torch.no_grad():
            self.teacher[0].weight.data.mul_(0.9).add_(self.layer.weight.data, alpha=0.1)
        noise = torch.randn(inputs.shape, generator=self.noise)
        if self.n == 2:
            self.extra = nn.Linear(4, 4)
            self.layer.register_forward_hook(lambda *_: None)
            self.layer.register_parameter("late", nn.Parameter(torch.ones(1)))
            self.layer.bias.requires_grad_(False)
            self.layer.weight.register_hook(lambda grad: grad * 0.5)
            self.layer.weight.mark = "mark"
            self.eval()
        return self.layer(inputs + noise)


def test_a_module_that_changes_itself_in_every_way():
    model = Stateful()
    optimizer = torch.optim.SGD(model.layer.parameters(), lr=0.1, momentum=0.9)
    check(model, trainer(model, optimizer, steps=3), optimizers=[optimizer])
    assert (model.n, model.history, list(model.recent), model.lazy) == (0, [], [], None)
    assert model.training
    assert model.layer.bias.requires_grad
    assert model.stats == {"min": 0.0, "nested": {"list": [1, 2]}}


def test_replaced_parameters_and_modules():
    model = mlp()
    before = Watch(model=model)
    with Snapshot([model]) as snapshot:
        for _ in range(2):
            model[0].weight = nn.Parameter(torch.zeros(8, 4))
            model[4] = nn.Linear(8, 3)
            model[0].bias.data = torch.zeros(5)
            model.append(nn.ReLU())
            del model[2]
            model.to(torch.float64)
            model[0].requires_grad_(False)
            model[1].num_batches_tracked = None
            snapshot.rewind()
    before.assert_as_before()


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("norm", ["old_weight", "old_spectral", "weight", "spectral"])
def test_normed_weights(norm):
    wrap = {
        "old_weight": nn.utils.weight_norm,
        "old_spectral": nn.utils.spectral_norm,
        "weight": parametrizations.weight_norm,
        "spectral": parametrizations.spectral_norm,
    }[norm]
    model = nn.Sequential(wrap(nn.Linear(4, 4)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    check(model, trainer(model, optimizer), optimizers=[optimizer])


def test_inference_buffers():
    model = mlp()
    with torch.inference_mode():
        buffer = torch.ones(3)
    model.register_buffer("statistics", buffer)
    before = bits(buffer)
    with Snapshot([model]), torch.inference_mode():
        buffer.add_(1)
    assert model.statistics is buffer
    assert bits(buffer) == before


def test_a_buffer_updated_in_place_with_gradients():
    model = mlp()
    model.register_buffer("trace", torch.ones(4))
    with Snapshot([model]):
        model.trace.mul_(model[0].weight[0])
        assert not model.trace.is_leaf
    assert model.trace.is_leaf
    assert not model.trace.requires_grad
    assert bits(model.trace) == bits(torch.ones(4))


def test_rnn_and_its_list_of_weights():
    model = nn.Sequential(nn.LSTM(4, 3, dropout=0.1, num_layers=2))
    optimizer = torch.optim.Adam(model.parameters())
    train = trainer(model, optimizer, shape=(2, 5, 4), loss=lambda outputs: outputs[0].square().mean())
    check(model, train, optimizers=[optimizer])


def test_a_criterion_with_parameters_and_an_average():
    class ArcLike(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 2))
            self.register_buffer("center", torch.zeros(2), persistent=False)

        def forward(self, outputs):
            self.center = 0.9 * self.center + 0.1 * outputs.detach().mean(0)
            return ((outputs - self.center) @ self.weight).square().mean()

    model, criterion = mlp(), ArcLike()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.AdamW([*model.parameters(), *criterion.parameters()])
    plain = trainer(model, optimizer, loss=criterion)

    def train():
        losses = plain()
        average.update_parameters(model)
        return losses

    check(model, train, optimizers=[optimizer], modules=[model, criterion], extra_state=[average], watched=average)
    assert average.n_averaged.item() == 0


def test_tied_weights_and_views_are_copied_once():
    model = nn.Module()
    model.embed = nn.Embedding(100, 64)
    model.head = nn.Linear(64, 100, bias=False)
    model.head.weight = model.embed.weight
    model.first_rows = model.embed.weight.detach()[:10]
    model.flat = model.embed.weight.detach().view(-1)
    snapshot = Snapshot([model])
    assert bytes_copied(snapshot) == 100 * 64 * 4
    with torch.no_grad():
        model.embed.weight.zero_()
    snapshot.restore()
    assert model.head.weight is model.embed.weight
    assert model.first_rows.abs().sum() > 0


def test_scripted_modules():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.script
        model = torch.jit.script(mlp())
    before = [bits(tensor) for tensor in (*model.parameters(), *model.buffers())]
    tensors = list(model.parameters())
    with Snapshot([model]):
        model.eval()
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.zero_()
    assert [bits(tensor) for tensor in (*model.parameters(), *model.buffers())] == before
    assert all(a is b for a, b in zip(tensors, model.parameters(), strict=True))
    assert all(module.training for module in model.modules())
