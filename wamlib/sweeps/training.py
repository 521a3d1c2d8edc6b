"""Train what is missing, side by side, and go on when one run fails."""

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, CancelledError, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import torch
from tqdm import tqdm

from .. import linear, stacked
from ..errors import WamlibError
from ..runs import RunStore

__all__ = ["SweepError", "run", "run_groups"]


class SweepError(WamlibError):
    """Some runs of a sweep failed; the others are finished and kept."""


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
        Anything with ``submit``, such as `distributed.Client.get_executor`; None
        means a pool of processes on this machine, one per CPU core, or one in all
        for an accelerator.
    device : str
        "auto" takes CUDA, else MPS, else the CPU.
    together : int
        Members of one architecture to train as one program at most, see `wamlib.stacked`. On a CPU that does not pay,
        so 1 is the default.
    workers : int or None
        Processes of the pool on this machine; several on one accelerator share it.

    Returns
    -------
    list of Run
        In the order of the configs.

    Raises
    ------
    SweepError
        If runs failed; the others were finished first.
    """
    store = store or RunStore()
    everything = dict.fromkeys(c for config in configs for c in (*_starts(config), config))
    missing = [config for config in everything if config not in store]
    if missing:
        if executor is not None:
            _train_missing(missing, store, executor, device, len(everything), together)
        else:
            with _local_pool(missing, device, workers) as pool:
                _train_missing(missing, store, pool, device, len(everything), together)
    return [store[config] for config in configs]


def run_groups(groups, store=None, executor=None, *, device="auto"):
    """Train what is missing in a dict of lists of configs, and return the same dict of lists of `Run`."""
    runs = iter(run([config for group in groups.values() for config in group], store, executor, device=device))
    return {name: [next(runs) for _ in group] for name, group in groups.items()}


def _starts(config):
    """Return the chain of starts below a config, the first one first."""
    return [] if config.start is None else [*_starts(config.start), config.start]


def _local_pool(missing, device, workers):
    on_cpu = device == "cpu" or (
        device == "auto" and not (torch.cuda.is_available() or torch.backends.mps.is_available())
    )
    if workers is None:
        workers = max(1, _cores() // max(config.threads for config in missing)) if on_cpu else 1
    # "spawn": a fork of a process that has used torch's threads, or CUDA, can hang.
    # Ctrl-C in a terminal reaches the workers too: they end at once and without a traceback,
    # and the epochs they have finished are kept.
    return ProcessPoolExecutor(
        min(workers, len(missing)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
    )


def _begin_worker():
    """Let a worker end by Ctrl-C at once, and with the process that started it, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)  # a training goes on from its last epoch next time

    threading.Thread(target=follow, daemon=True).start()


def _cores():
    # What this process may use, which in a container is less than what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _train_missing(missing, store, executor, device, n_all, together):
    bar = tqdm(
        total=len(missing),
        unit="run",
        desc=f"training ({n_all - len(missing)} of {n_all} runs cached)",
        mininterval=0.5 if sys.stderr.isatty() else 15,  # a log is not a terminal: a line now and then
    )
    waiting, futures, failures = _jobs(missing, together), {}, []
    try:
        while waiting or futures:
            # A run waits until its start is there, so that no worker idles on another's lock.
            ready = [job for job in waiting if all(c.start is None or c.start in store for c in job)]
            for job in ready:
                futures[executor.submit(_train_job, job, store.root, store.data_root, device)] = job
            waiting = [job for job in waiting if job not in ready]
            if not futures:
                break  # what still waits has a start that failed
            done, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in done:
                job = futures.pop(future)
                try:
                    bar.set_postfix_str(future.result(), refresh=False)
                except (KeyboardInterrupt, CancelledError):
                    raise
                except BrokenProcessPool as error:
                    raise _failed([(job[0], "its worker process died")], len(missing)) from error
                except Exception as error:  # one run's failure must not stop the others
                    # Of members trained together those that did not fail were kept.
                    failures += [(c, f"{type(error).__name__}: {error}") for c in job if c not in store]
                bar.update(len(job))
    except BaseException:
        if isinstance(executor, ProcessPoolExecutor):
            # Not future by future: its own thread trips over those when workers die at the same time.
            executor.shutdown(wait=False, cancel_futures=True)
        else:
            for future in futures:
                future.cancel()
        raise
    finally:
        bar.close()
    if failures:
        raise _failed(failures, len(missing))


def _jobs(missing, together):
    """Return lists of configs, each to be trained by one worker at once."""
    if together == 1:
        return linear.group(missing)
    problems = [job for job in linear.group(missing) if len(job) > 1]
    taken = {config for job in problems for config in job}
    return problems + stacked.group([config for config in missing if config not in taken], together)


def _failed(failures, n):
    config, reason = failures[0]
    return SweepError(
        "cannot finish a sweep",
        item=f"{len(failures)} of {n} runs, first {config.run_id}",
        got=reason,
        wanted="a finished run",
        fix="Finished runs are kept. Mend the cause and run the same command again: it trains only what is missing.",
    )


def _train_job(job, root, data_root, device):
    """Train one run, or several as one problem, in a worker; return a line about the last."""
    config = job[-1]
    torch.set_num_threads(config.threads)  # of this worker: evaluation too must not take its neighbour's core
    store = RunStore(root, data_root)
    run = store.train_together(job, device=device)[-1] if len(job) > 1 else store.train(config, device=device)
    test, last = run.record["metrics"]["test"], run.record["history"][-1]
    return f"last {config.model}: loss {last['loss']:.2f}, test accuracy {test['accuracy']:.1f} %"
