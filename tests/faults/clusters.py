"""Dask schedulers and workers as processes of their own, to be killed."""

import contextlib
import os
import re
import subprocess
import sys

SMALL = (
    "{dataset: digits, datasets: [digits], n_linear: 1, n_train: 200, models: [cnn], n_members: 2, n_replicas: 1, "
    "epochs: 16, trunk_epochs: 8, linear_epochs: 1, template_models: [], wide_models: [], pool_models: [], "
    "arm_models: [], protocol_models: [], many_models: [], flat_models: [], recipe_models: [], "
    "pretrained_datasets: [], n_train_pools: 100, n_eval_pools: 100, model: cnn, batchnorm_model: cnn}\n"
)


def sweep(folder, *options, **more):
    """Start the command line on a small sweep, everything below a folder."""
    (folder / "params.yml").write_text(SMALL)
    command = [sys.executable, "-m", "wamlib.cli", "sweep", "--params", str(folder / "params.yml"), *options]
    env = {**os.environ, "WAMLIB_HOME": str(folder), "OMP_NUM_THREADS": "1", **more}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def started(folder):
    """Yield a function that starts ``scheduler`` or ``worker ADDRESS ...`` and returns the process and its address."""
    processes = []

    def start(kind, *options):
        log = folder / f"{kind}-{len(processes)}.log"
        words = [sys.executable, "-m", "distributed.cli.dask_" + kind, *options, "--no-dashboard"]
        words += ["--host", "127.0.0.1"] + (["--port", "0"] if kind == "scheduler" else ["--no-nanny"])
        with open(log, "w") as file:
            process = subprocess.Popen(words, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
        processes.append(process)
        if kind == "worker":
            return process, None
        while not (found := re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
        return process, found[1]

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.wait()
