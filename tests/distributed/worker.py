"""One rank: runs scenarios one after the other and writes down what it saw. Started by `launch`, or by torchrun."""

import json
import os
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from tests.distributed import scenarios

TIMEOUT = timedelta(seconds=20)


def main(folder, names):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    report: dict = {"seconds": {}}
    seconds = report["seconds"]
    try:
        dist.init_process_group("gloo", timeout=TIMEOUT)
        for name in names:
            begin = time.perf_counter()
            report[name] = getattr(scenarios, name)()
            seconds[name] = round(time.perf_counter() - begin, 2)
    except BaseException:  # noqa: BLE001 - it goes into the report
        report["crash"] = traceback.format_exc()
    finally:
        (Path(folder) / f"{rank}.json").write_text(json.dumps(report))
    if "crash" not in report and dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
