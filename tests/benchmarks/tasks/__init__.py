"""The benchmark's tasks: small trainings of many kinds, each of seconds on one core.

>>> from tests.benchmarks.tasks import TASKS
>>> len(TASKS) >= 30
True
"""

from tests.benchmarks.tasks import convex, densities, embeddings, finetuning, sequences, tabular, vision
from tests.benchmarks.tasks.fingerprint import fingerprint
from tests.benchmarks.tasks.task import TASKS, Parts, Setup, Task
from tests.benchmarks.tasks.training import endless, train

__all__ = [
    "TASKS",
    "Parts",
    "Setup",
    "Task",
    "convex",
    "densities",
    "embeddings",
    "endless",
    "finetuning",
    "fingerprint",
    "sequences",
    "tabular",
    "train",
    "vision",
]
