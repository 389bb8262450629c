import pytest
import torch
from torch import nn

from lrfinder import LRFinder, LRFinderError
from lrfinder.training.optimizer_guard import forbid_other_optimizers
from tests.notes import Notes


def setup(**kwargs):
    model = nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    return model, torch.optim.SGD(model.parameters(), lr=0.1, **kwargs)


def test_an_optimizer_that_was_not_captured_is_stopped_before_it_writes():
    model, optimizer = setup(momentum=0.9)
    before = model.weight.detach().clone()
    with forbid_other_optimizers([]), pytest.raises(LRFinderError, match=r"SGD with 1 .* stepped .*extra_state="):
        optimizer.step()
    assert torch.equal(model.weight, before)
    assert not optimizer.state


def test_captured_optimizers_may_step():
    model, optimizer = setup()
    _, other = setup()
    before = model.weight.detach().clone()
    with forbid_other_optimizers([optimizer, other]):
        optimizer.step()
        other.step()
    assert not torch.equal(model.weight, before)


def test_after_the_context_every_optimizer_may_step():
    _, optimizer = setup()
    with forbid_other_optimizers([]):
        pass
    optimizer.step()
    with pytest.raises(KeyboardInterrupt), forbid_other_optimizers([]):
        raise KeyboardInterrupt
    optimizer.step()


@pytest.mark.filterwarnings("ignore::lrfinder.LRFinderWarning")  # five points show little
@pytest.mark.parametrize("hidden", [True, False])
def test_a_find_stops_a_second_optimizer_unless_it_was_captured(hidden):
    """What a closure holds is captured, what only a class holds is not."""
    generator, critic = nn.Linear(1, 1), nn.Linear(1, 1)
    one, two = (torch.optim.Adam(m.parameters(), lr=1e-3) for m in (generator, critic))
    batches = [torch.linspace(-1, 1, 8).reshape(8, 1)] * 3

    critics = Notes((critic, two)) if hidden else [(critic, two)]

    def step(batch):
        critic, two = critics[0]
        two.zero_grad()
        critic(generator(batch).detach()).pow(2).mean().backward()
        two.step()
        one.zero_grad()
        loss = (critic(generator(batch)) - 1).pow(2).mean()
        loss.backward()
        one.step()
        return loss

    before = [p.detach().clone() for m in (generator, critic) for p in m.parameters()]

    def unchanged():
        now = [p for m in (generator, critic) for p in m.parameters()]
        return all(torch.equal(a, b) for a, b in zip(now, before, strict=True)) and not (one.state or two.state)

    def find(**options):
        finder = LRFinder(generator, one, step=step, **options)
        return finder.find(batches, start_lr=1e-4, end_lr=1e-2, num_iter=5, progress=False)

    if hidden:
        with pytest.raises(LRFinderError, match="An optimizer, Adam with 1 parameter groups, stepped"):
            find()
        critic.zero_grad()  # its gradients came before the step
    else:
        assert len(find().lrs) == 5
    assert unchanged()
    assert len(find(extra_state=[critic, two]).lrs) == 5
    assert unchanged()
