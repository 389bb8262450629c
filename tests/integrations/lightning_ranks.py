"""What each of two ranks does under Lightning's DDP; it writes what it saw to the folder named on the command line."""

import json
import logging
import os
import sys
import warnings
import weakref
from pathlib import Path

import torch
from lightning.pytorch.strategies import DDPStrategy

from lrfinder import LRFinderError
from lrfinder.integrations.lightning import LearningRateFinder, find_lr
from tests.fingerprint import Fingerprint, bits, differences
from tests.integrations.test_lightning import CLEAR, Net, loader, seed, trainer

RANK = int(os.environ["RANK"])


def ddp(**options):
    return trainer(strategy=DDPStrategy(process_group_backend="gloo"), devices=2, accumulate_grad_batches=2, **options)


class Failing(Net):
    """Raises on one rank in the third step."""

    def training_step(self, batch, batch_idx):
        self.seen += 1
        if self.seen == 5 and RANK == 1:
            raise RuntimeError("only here")
        return super().training_step(batch, batch_idx)


def weights(module):
    return str({name: bits(tensor) for name, tensor in module.state_dict().items()})


def fit(module=None, **options):
    if module is None:
        seed()
        module = Net()
    ddp(**options).fit(module, loader())
    return weights(module)


def main():
    report = {"plain": fit()}
    seed()
    module, fitting = Net(), ddp()
    before = Fingerprint(module=module).values
    result = find_lr(fitting, module, loader(), apply=False, **CLEAR)
    report["changed"] = differences(before, Fingerprint(module=module).values)
    report["lr"], report["losses"] = result.suggestion.lr, result.losses.tolist()
    report["steps"], report["world"] = result.total_steps, result.meta["world_size"]
    report["after a find"] = fit(module)
    finder = LearningRateFinder(apply=False, **CLEAR)
    report["with the callback"] = fit(callbacks=[finder])
    report["callback's lr"] = finder.result.suggestion.lr
    seed()
    module = Failing()
    try:
        find_lr(ddp(), module, loader(), **CLEAR)
    except (LRFinderError, RuntimeError) as error:
        report["error"] = [type(error).__name__, str(error)]
    module.__class__ = Net
    report["after a fault"] = fit(module)
    # Without this, a rank could still use connections to one that has ended, and abort.
    torch.distributed.barrier()
    group = weakref.ref(torch.distributed.group.WORLD)
    torch.distributed.destroy_process_group()
    report["process group ended"] = group() is None
    Path(sys.argv[1], f"{RANK}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    main()
