"""Optimizers with several parameter groups."""

import torch
from torch import nn

__all__ = ["Wrapper", "parameters", "sgd"]


def parameters(*sizes, device=None):
    return [nn.Parameter(torch.ones(size, device=device)) for size in sizes]


def sgd(*sizes_and_lrs, **kwargs):
    groups = [{"params": parameters(size), "lr": lr} for size, lr in sizes_and_lrs]
    return torch.optim.SGD(groups, lr=1.0, **kwargs)


class Wrapper:
    """What Accelerate's wrapper offers: the groups and the state of the optimizer in `.optimizer`."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    @property
    def state(self):
        return self.optimizer.state
