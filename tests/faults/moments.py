"""Trainings that are killed: a script, so that its processes can fork without threads of others around.

Usage: moments.py every ROOT        one training per step on the disk, killed just there, each in a store of its own
       moments.py many ROOT N       one store, N trainings of one run, each killed a little later than the one before
"""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import tiny

from wamlib.runs import RunStore

SHORT, LONG = tiny(epochs=2), tiny(model="cnn", epochs=150)
STEPS = ("open", "os.mkdir", "os.rename", "os.remove")


def fork(work):
    process = os.fork()
    if process:
        return process
    work()
    os._exit(0)


def train(root, config, die_at=None):
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event in STEPS and str(arguments[0]).startswith(str(root)):
            if count == die_at:
                if event == "os.rename":  # as if killed in the middle of writing what was to get its name now
                    os.truncate(arguments[0], os.path.getsize(arguments[0]) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.addaudithook(hook)
    RunStore(root).train(config, device="cpu")


def every(root):
    for step in range(1000):
        process = fork(lambda step=step: train(root / str(step), SHORT, step))
        if os.waitpid(process, 0)[1] == 0:
            return step
    raise AssertionError("no end")


def many(root, n):
    kills = 0
    for number in range(n):
        process = fork(lambda: train(root, LONG))
        time.sleep(0.12 * (number + 1) / n)  # from before the first step of all to within an epoch
        os.kill(process, signal.SIGKILL)
        kills += os.WIFSIGNALED(os.waitpid(process, 0)[1])
    return kills


if __name__ == "__main__":
    assert os.environ["OMP_NUM_THREADS"] == "1"
    how, folder, *rest = sys.argv[1:]
    with tempfile.TemporaryDirectory() as other:  # what a training imports is here then, and moments lie in trainings
        RunStore(other).train(SHORT, device="cpu")
    print({"every": every, "many": many}[how](Path(folder), *map(int, rest)))
