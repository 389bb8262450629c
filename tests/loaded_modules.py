"""Which modules a statement loads: one process imports torch, and each statement runs in a fork of it."""

import json
import subprocess
import sys
from pathlib import Path

__all__ = ["ForkedImports"]

ROOT = Path(__file__).parents[1]
SERVER = """
import json, os, sys, traceback
import numpy, torch
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    if os.fork() == 0:
        try:
            exec(json.loads(line), {"numpy": numpy, "torch": torch})
            answer = {"modules": list(sys.modules)}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)
        os._exit(0)
    os.wait()
"""


class ForkedImports:
    """A process that has imported NumPy and torch and nothing else."""

    def __init__(self):
        self._server = None

    def __call__(self, statement):
        """Return the names of all modules that are loaded after the statement, those of NumPy and torch among them."""
        if self._server is None:
            command, pipe = [sys.executable, "-c", SERVER], subprocess.PIPE
            self._server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT)
        print(json.dumps(statement), file=self._server.stdin, flush=True)
        answer = json.loads(self._server.stdout.readline())
        assert "error" not in answer, answer["error"]
        return set(answer["modules"])

    def close(self):
        if self._server is not None:
            self._server.communicate(timeout=60)
