"""A training with Accelerate, as its documentation writes it."""

import inspect

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lrfinder.integrations.accelerate import finder_for
from tests.distributed.setups import HAS_FSDP

__all__ = ["HAS_FSDP2", "Setup", "reset", "use_fsdp2"]

# The oldest Accelerate knows the first FSDP only.
HAS_FSDP2 = HAS_FSDP and "fsdp_version" in inspect.signature(FullyShardedDataParallelPlugin).parameters


def use_fsdp2(accelerator):
    """Let an accelerator shard; without GPUs it chooses DistributedDataParallel whatever it is told."""
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # from which others are made
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, reshard_after_forward=True, auto_wrap_policy="no_wrap", cpu_ram_efficient_loading=False
    )


def local(tensor):
    """Return the shard of a tensor that is sharded, else the tensor."""
    return getattr(tensor, "_local_tensor", tensor)


def reset():
    """Forget Accelerate's states, which all accelerators of a process share."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Setup:
    """The same training at every call."""

    def __init__(
        self,
        *,
        scaler=None,
        accumulation=1,
        max_grad_norm=None,
        loader=None,
        optimizer=torch.optim.AdamW,
        fsdp2=False,
        **options,
    ):
        torch.manual_seed(0)
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation, **options)
        self.accelerator.scaler = scaler  # without a GPU Accelerate makes none
        self.accelerator.native_amp = scaler is not None or self.accelerator.native_amp
        if scaler is not None:
            self.accelerator.state._mixed_precision = "fp16"
        if fsdp2:
            use_fsdp2(self.accelerator)
        self.max_grad_norm = max_grad_norm
        x = torch.randn(40, 6)
        data = TensorDataset(x, (x.sum(1) > 0).long())
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))
        self.model, self.optimizer, self.loader = self.accelerator.prepare(
            model,
            optimizer(model.parameters(), lr=1e-3),
            DataLoader(data, **{"batch_size": 4, "shuffle": True, **(loader or {})}),
        )
        self.criterion = nn.CrossEntropyLoss()

    def finder(self, **options):
        clip = {} if self.max_grad_norm is None else {"max_grad_norm": self.max_grad_norm}
        return finder_for(self.accelerator, self.model, self.optimizer, self.criterion, **clip, **options)

    def batch(self, inputs, targets):
        with self.accelerator.accumulate(self.model):
            loss = self.criterion(self.model(inputs), targets)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients and self.max_grad_norm is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.item()

    def train(self, epochs=2):
        losses = [self.batch(*batch) for _ in range(epochs) for batch in self.loader]
        return losses, [local(p).tolist() for p in self.model.state_dict().values()]

    def parts(self):
        shared = vars(self.accelerator.gradient_state)
        return {"accelerator": self.accelerator, "shared": shared, "model": self.model, "optimizer": self.optimizer,
                "loader": self.loader}  # fmt: skip
