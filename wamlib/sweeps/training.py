"""Train what is missing, side by side, and go on when one run fails."""

import contextlib
import sys
import threading
import traceback
from concurrent.futures import CancelledError
from dataclasses import dataclass

import torch
from tqdm import tqdm

from .. import linear, stacked
from ..config import TrainConfig
from ..errors import StoreError, WamlibError
from ..runs import RunStore
from .local import LocalWorkers, slots
from .scheduling import schedule

__all__ = ["Failure", "SweepError", "run", "run_groups"]

DOING = "cannot finish a sweep"

ONE_AT_A_TIME = threading.Lock()  # in a worker of several threads: trainings share the process's random numbers


class SweepError(WamlibError):
    """Some runs of a sweep failed; the others are finished and kept.

    Attributes
    ----------
    failures : list of Failure
    """

    failures = ()


@dataclass(frozen=True)
class Failure:
    """A run that failed: config, error in a line, traceback, and whether the line explains it without one."""

    config: TrainConfig
    error: str
    traceback: str
    explained: bool


def run(configs, store=None, executor=None, *, device="auto", together=1, workers=None):
    """Train what is missing and return all runs.

    Parameters
    ----------
    configs : sequence of TrainConfig
        A config that occurs twice, or a start that many share, is trained once. Linear
        members that differ in little are trained as one problem, see `wamlib.linear`.
    store : RunStore or None
        None means the store of this checkout.
    executor : concurrent.futures.Executor or None
        Anything with ``submit``, such as what `wamlib.sweeps.cluster` yields; None
        means processes of this machine, one per GPU, or per CPU core.
    device : str
        "auto" takes CUDA, else MPS, else the CPU.
    together : int
        Members of one architecture to train as one program at most, see `wamlib.stacked`. On a CPU that does not pay,
        so 1 is the default.
    workers : int or None
        Processes of this machine; several on one accelerator share it.

    Returns
    -------
    list of Run
        In the order of the configs.

    Raises
    ------
    SweepError
        If runs failed; the others were finished first.
    StoreError
        If the store cannot be written to.
    """
    store = store or RunStore()
    everything = dict.fromkeys(c for config in configs for c in (*_starts(config), config))
    missing = store.missing(everything)
    if missing:
        store.storage.check_writable()
        with _executor(executor, missing, device, workers) as executor:
            _train_missing(missing, store, executor, device, len(everything), together)
    return store.load(configs)


def run_groups(groups, store=None, executor=None, *, device="auto"):
    """Train what is missing in a dict of lists of configs, and return the same dict of lists of `Run`."""
    runs = iter(run([config for group in groups.values() for config in group], store, executor, device=device))
    return {name: [next(runs) for _ in group] for name, group in groups.items()}


def _starts(config):
    """Return the chain of starts below a config, the first one first."""
    return [] if config.start is None else [*_starts(config.start), config.start]


@contextlib.contextmanager
def _executor(executor, missing, device, workers):
    if executor is not None:
        yield executor
        return
    environments = slots(device, workers, max(config.threads for config in missing))
    workers = LocalWorkers(environments[: len(missing)])
    try:
        yield workers
    finally:
        workers.shutdown(cancel_futures=True)  # all is done, or it was interrupted; epochs that are finished are kept


def _train_missing(missing, store, executor, device, n_all, together):
    bar = tqdm(
        total=len(missing),
        unit="run",
        desc=f"training ({n_all - len(missing)} of {n_all} runs cached)",
        mininterval=0.5 if sys.stderr.isatty() else 15,  # a log is not a terminal: a line now and then
    )
    failures = []

    def submit(job):
        return executor.submit(_train_job, job, str(store.root), str(store.data_root), device)

    with bar, contextlib.closing(schedule(_jobs(missing, together), submit, store.__contains__)) as ended:
        for job, future in ended:
            try:
                said, failed = future.result()
                bar.set_postfix_str(said, refresh=False)
            except CancelledError as error:
                raise _lost(len(missing)) from error
            except Exception as error:  # the worker is gone, or could not even answer
                failed = [_note(store, config, error) for config in job if config not in store]
            failures += failed or [_unseen(store, config) for config in job if config not in store]
            bar.update(len(job))
    if failures:
        raise _failed(failures, missing, store)


def _jobs(missing, together):
    """Return lists of configs, each to be trained by one worker at once."""
    if together == 1:
        return linear.group(missing)
    problems = [job for job in linear.group(missing) if len(job) > 1]
    taken = {config for job in problems for config in job}
    return problems + stacked.group([config for config in missing if config not in taken], together)


def _train_job(job, root, data_root, device):
    """Train one run, or several as one problem, in a worker; return a line about the last, and what failed."""
    config = job[-1]
    torch.set_num_threads(config.threads)  # of this worker: evaluation too must not take its neighbour's core
    store = RunStore(root, data_root)
    try:
        with ONE_AT_A_TIME:
            run = store.train_together(job, device=device)[-1] if len(job) > 1 else store.train(config, device=device)
    except Exception as error:  # one run's failure must not stop the others
        # Of members trained together those that did not fail were kept.
        return "", [_note(store, config, error) for config in job if config not in store]
    test, last = run.record["metrics"]["test"], run.record["history"][-1]
    return f"last {config.model}: loss {last['loss']:.2f}, test accuracy {test['accuracy']:.1f} %", []


def _note(store, config, error):
    """Return a failure, kept in the store beside what there is of the run."""
    text = "".join(traceback.format_exception(error))
    failure = Failure(config, f"{type(error).__name__}: {error}", text, isinstance(error, WamlibError))
    with contextlib.suppress(StoreError):  # which may be why it failed
        store.note_failure(config, failure.error, text)
    return failure


def _unseen(store, config):
    error = f"a worker has finished {config.run_id}, but no record of it is in {store.root}. Workers and this machine "
    return Failure(config, error + "must share the store: a shared folder, or s3://.", "", True)


def _lost(n):
    item, got, wanted = f"{n} runs that were missing", "a cluster that went away", "a scheduler until the end"
    fix = "Finished runs are kept. Start the scheduler and its workers, and run the same command again."
    return SweepError(DOING, item, got, wanted, fix)


def _failed(failures, missing, store):
    failed = {failure.config for failure in failures}
    n_behind = len(store.missing(missing)) - len(failed)
    behind = f"; {n_behind} more begin with one of them" if n_behind else ""
    item = f"{len(failures)} of {len(missing)} runs, first {failures[0].config.run_id}{behind}"
    fix = "Finished runs are kept. Mend the cause and run the same command again: it trains only what is missing. "
    fix += "`wamlib runs --failed` shows each with its config and traceback."
    error = SweepError(DOING, item, failures[0].error, "a finished run", fix)
    error.failures = failures
    return error
