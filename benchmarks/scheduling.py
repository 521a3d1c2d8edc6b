"""What a sweep costs beside the training: 10,000 runs that take no time, and one worker against two with runs that do.

The runs are of the real kind, a fourth of them trunks and the others members that begin with one, and go through
`wamlib.sweeps.run` to a Dask cluster on this machine; in place of training a worker writes a record. The peer is the
same function on the same cluster, mapped over the same jobs by Dask alone. What one run asks of an object store is
counted in the log of a local S3 server. From these follow the numbers of the page "Past one machine".
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import distributed
from machine import write

from wamlib import models, storage, sweeps
from wamlib.config import TrainConfig
from wamlib.records import encode_record
from wamlib.runs import RECORD, RunStore
from wamlib.sweeps.local import LocalWorkers

N_RUNS, N_LOOKUPS, ROUNDS = 10_000, 1_000, 5
N_GPUS, PLANNED = 10_000, "resnet18_cifar"
DIGEST = "0" * 64


def fake(job, root):
    """Write the records of a job, as a training does in the end."""
    store = RunStore(root)
    for config in job:
        row = {"loss": 0.5, "accuracy": 90.0}
        record = {
            "run_id": config.run_id,
            "config": config.to_dict(),
            "metrics": {"test": row, "selection": row},
            "history": [{"epoch": epoch, **row, "lr": 0.1, "seconds": 1.0} for epoch in range(config.epochs)],
            "seconds": 1.0,
            "machine": {"device": "cpu"},
            "versions": {},
            "code": {},
            "checkpoint_sha256": DIGEST,
            "logits_sha256": DIGEST,
            "finished": "2026-01-01T00:00:00+00:00",
        }
        store.storage.create(f"{config.run_id}/{RECORD}", encode_record(record))
    return "a fake", []


class WithoutTraining(Executor):
    """An executor that gives `fake` to another one, whatever it is asked to call."""

    def __init__(self, executor):
        self.executor = executor

    def submit(self, call, job, root, *_):
        return self.executor.submit(fake, job, root)


def configs(n):
    trunks = [TrainConfig(dataset="digits", model="mlp", epochs=2, seed=seed) for seed in range(n // 4)]
    members = [replace(trunk, start=trunk, init_seed=None, seed=seed) for trunk in trunks for seed in range(3)]
    return trunks + members


def seconds(call, *arguments):
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


def look_up(store, wanted):
    """Return the seconds until the run id of each config is known, and whether its run is there."""
    return seconds(lambda: [config in store for config in wanted])


@contextlib.contextmanager
def cluster(n_workers):
    """Yield the client of a scheduler and its workers, processes of one thread each."""
    with (
        distributed.LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=None) as local,
        distributed.Client(local) as client,
    ):
        yield client


def overhead(numbers, root):
    """Measure runs that take no time, in stores of 1,000 and of `N_RUNS`."""
    with cluster(2) as client:
        executor = WithoutTraining(client.get_executor(pure=False))
        client.submit(fake, configs(4), str(root / "warm"), pure=False).result()
        for n in (1_000, N_RUNS):
            store, wanted = RunStore(root / str(n)), configs(n)
            half = wanted[: n // 8] + wanted[n // 4 : n // 4 + 3 * (n // 8)]  # half of the trunks and their members
            first = seconds(sweeps.run, half, store, executor)
            second = seconds(sweeps.run, wanted, store, executor)
            numbers |= {
                f"overhead_ms_{n}": 1e3 * (first + second) / n,
                f"second_half_s_{n}": second,
                # As a new process does it: the configs are made anew, so none knows its run id yet.
                f"resume_s_{n}": seconds(sweeps.run, configs(n), store, executor),
                f"listing_s_{n}": seconds(store.table),
                f"lookup_us_{n}": 1e6 * look_up(store, configs(n)[:: n // N_LOOKUPS]) / N_LOOKUPS,
            }
        jobs = [[config] for config in configs(N_RUNS)]
        alone = seconds(lambda: client.gather(client.map(fake, jobs, root=str(root / "alone"), pure=False)))
        numbers |= {"dask_ms": 1e3 * alone / N_RUNS}
        numbers["overhead_by_dask"] = numbers[f"overhead_ms_{N_RUNS}"] / numbers["dask_ms"]
        numbers["lookup_growth"] = numbers[f"lookup_us_{N_RUNS}"] / numbers["lookup_us_1000"]
        numbers["overhead_growth"] = numbers[f"overhead_ms_{N_RUNS}"] / numbers["overhead_ms_1000"]


def local_pool(numbers):
    """Measure calls that do nothing: the pool of a sweep beside the standard library's."""
    with LocalWorkers([{}, {}]) as ours, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as theirs:
        for pool in (ours, theirs):
            list(pool.map(abs, range(100)))
        rounds = [[seconds(lambda: list(pool.map(abs, range(2_000)))) for pool in (ours, theirs)] for _ in range(5)]  # noqa: B023
    own, other = (statistics.median(times) for times in zip(*rounds, strict=True))
    numbers |= {"pool_us": 1e6 * own / 2_000, "process_pool_executor_us": 1e6 * other / 2_000}


def two_workers(numbers, root):
    """Measure a sweep of trainings with one worker and with two, in turn."""
    wanted = [TrainConfig(dataset="digits", model="cnn", epochs=40, seed=s, init_seed=s) for s in range(8)]
    times = {1: [], 2: []}
    for number in range(ROUNDS):
        for n in times:
            with cluster(n) as client:
                executor = client.get_executor(pure=False)
                warm = [replace(config, epochs=1, seed=100 + i) for i, config in enumerate(wanted[: 2 * n])]
                sweeps.run(warm, RunStore(root / f"warm-{number}-{n}"), executor)  # what a worker imports is not meant
                times[n].append(seconds(sweeps.run, wanted, RunStore(root / f"{number}-{n}"), executor))
    one, two = (statistics.median(times[n]) for n in (1, 2))
    numbers |= {"one_worker_s": one, "two_workers_s": two, "two_by_one": two / one, "scheduling_rounds": ROUNDS}
    numbers["two_by_one_rounds"] = [b / a for a, b in zip(*times.values(), strict=True)]


def requests(numbers, root):
    """Count the requests to an object store of one run that is trained, and of looking it up and reading it."""
    log = root / "s3.log"
    with open(log, "w") as file:
        server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", "0"], stdout=file, stderr=file)
    try:
        while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())):
            time.sleep(0.1)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_ENDPOINT_URL": found[1],
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        urllib.request.urlopen(urllib.request.Request(f"{found[1]}/bucket", method="PUT")).close()
        store, config = RunStore("s3://bucket/runs"), TrainConfig(dataset="digits", model="mlp", epochs=2)

        def count(call):
            before = len(log.read_text().splitlines())
            call()
            return len([line for line in log.read_text().splitlines()[before:] if " /bucket" in line])

        numbers |= {
            "requests_train": count(lambda: store.train(config)),
            "requests_lookup": count(lambda: config in store),
            "requests_weights": count(lambda: store[config].state),
        }
    finally:
        server.kill()
        server.wait()


def plan(numbers):
    """Add what follows for `N_GPUS` that each train one member after the other."""
    state = models.build(PLANNED, 10, 3, (32, 32)).state_dict()
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    pace = numbers[f"overhead_ms_{N_RUNS}"] / 1e3
    numbers |= {
        "plan_gpus": N_GPUS,
        "plan_runs_per_second": 1 / pace,
        "plan_shortest_run_s": N_GPUS * pace,
        "plan_checkpoint_mb": size / 1e6,
        "plan_resume_mb": 2 * size / 1e6,  # weights and momentum
        "plan_tb_per_million_runs": size * 1e6 / 1e12,
        "plan_upload_gb_per_s": N_GPUS * 2 * size / storage.UPLOAD_SECONDS / 1e9,
        "plan_upload_minutes": storage.UPLOAD_SECONDS / 60,
        "plan_list_requests_per_million_runs": 3 * 1_000_000 / 1_000,  # three objects a run, a thousand in a listing
    }


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    numbers = {"n_scheduled": N_RUNS, "dask": distributed.__version__}
    with tempfile.TemporaryDirectory() as folder:
        disk = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()
        numbers["file_system"] = disk
        two_workers(numbers, Path(folder))
        local_pool(numbers)
        overhead(numbers, Path(folder))
        requests(numbers, Path(folder))
    plan(numbers)
    for name, value in numbers.items():
        print(name, value)
    print(write("scheduling", numbers))


if __name__ == "__main__":
    sys.exit(main())
