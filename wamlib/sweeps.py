"""Sweeps: lists of configs, and training of those that are missing."""

import inspect
import multiprocessing
import os
import signal
import sys
from concurrent.futures import FIRST_COMPLETED, CancelledError, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import torch
from tqdm import tqdm

from .config import TrainConfig, derive_seed
from .errors import ConfigError, WamlibError
from .runs import RunStore

__all__ = ["STARTS", "SweepError", "book", "linear_members", "pool", "pools", "run", "run_groups", "width_pairs"]

STARTS = ("shared start", "shared init", "independent init")

# What each small architecture trains well with on a few thousand images; all else is TrainConfig's default.
RECIPES = {
    "linear": {"peak_lr": 0.02, "weight_decay": 0.0, "batch_size": 128},
    "mlp": {"peak_lr": 0.05},
    "cnn": {"peak_lr": 0.05},
    "resnet8": {"peak_lr": 0.1},
}
# Parameters of chapters that do not decide which runs there are.
CHAPTER_ONLY = {
    "profile", "sizes", "alphas", "line", "factors", "n_scaled", "n_images", "n_recalibration", "batchnorm_model",
}  # fmt: skip
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)


class SweepError(WamlibError):
    """Some runs of a sweep failed; the others are finished and kept."""


def pool(start, *, model, n_members=5, replica=0, epochs=4, trunk_epochs=2, **settings):
    """Return the configs of one pool of members.

    Every member has seen the same number of epochs when it is done, whatever the start.

    Parameters
    ----------
    start : {"shared start", "shared init", "independent init"}
        Members continue from one trunk trained for ``trunk_epochs``; or begin with
        the same random weights; or begin with random weights of their own.
    model : str
        A name that `wamlib.models.build` knows.
    n_members : int
        Members of the pool. They differ in ``seed``: order of images, dropout.
    replica : int
        Pools with different numbers share no seed, so they are independent.
    epochs, trunk_epochs : int
        Epochs a member has seen in all, and how many of them in the trunk.
    **settings
        Further fields of `wamlib.config.TrainConfig`.

    Returns
    -------
    list of TrainConfig
    """
    if start not in STARTS or not 0 < trunk_epochs < epochs:
        raise ConfigError(
            "cannot make a pool",
            item="start, epochs, trunk_epochs",
            got=f"{start!r}, {epochs}, {trunk_epochs}",
            wanted=f"one of {', '.join(STARTS)}, and 0 < trunk_epochs < epochs",
            fix="Correct the arguments.",
        )
    common = {"model": model, **RECIPES.get(model.partition("-x")[0], {}), **settings}
    seeds = [derive_seed("member", replica, member) % 2**31 for member in range(n_members)]
    shared = derive_seed("pool", replica) % 2**31
    if start == "independent init":
        return [TrainConfig(seed=seed, init_seed=seed, epochs=epochs, **common) for seed in seeds]
    if start == "shared init":
        return [TrainConfig(seed=seed, init_seed=shared, epochs=epochs, **common) for seed in seeds]
    trunk = TrainConfig(seed=shared, init_seed=shared, epochs=trunk_epochs, **common)
    rest = epochs - trunk_epochs
    return [TrainConfig(seed=seed, init_seed=None, start=trunk, epochs=rest, **common) for seed in seeds]


def pools(models, *, n_replicas=3, **settings):
    """Return the pools of a sweep: ``{(model, start, replica): list of TrainConfig}``.

    Parameters
    ----------
    models : sequence of str
        Architectures.
    n_replicas : int
        Independent pools per architecture and start.
    **settings
        As for `pool`.
    """
    return {
        (model, start, replica): pool(start, model=model, replica=replica, **settings)
        for model in models
        for start in STARTS
        for replica in range(n_replicas)
    }


def width_pairs(models, widths, *, n_replicas=3, **settings):
    """Return pairs of independent members over widths: ``{(model, width, replica): list of TrainConfig}``.

    Parameters
    ----------
    models : sequence of str
        Architectures.
    widths : sequence of float
        Factors on the number of units of every hidden layer; 1 is the architecture as
        it is, and its pairs are the first two members of the pools.
    n_replicas : int
        Independent pairs per architecture and width.
    **settings
        As for `pool`, without ``n_members``.
    """
    return {
        (model, width, replica): pool(
            "independent init",
            model=model if width == 1 else f"{model}-x{width:g}",
            replica=replica,
            **settings | {"n_members": 2},
        )
        for model in models
        for width in widths
        for replica in range(n_replicas)
    }


def linear_members(*, n_members=5, epochs=10, weight_decays=WEIGHT_DECAYS, **settings):
    """Return linear members over weight decays, and a control with shuffled labels.

    Returns
    -------
    dict
        ``{weight decay: list of TrainConfig}``, and under the key "shuffled labels"
        the members at the first weight decay whose labels were dealt out at random.
    """

    def members(**changes):
        common = {"model": "linear", **RECIPES["linear"], "epochs": epochs, **settings, **changes}
        return [TrainConfig(seed=seed, init_seed=seed, **common) for seed in range(n_members)]

    by_decay = {decay: members(weight_decay=decay) for decay in weight_decays}
    return {**by_decay, "shuffled labels": members(weight_decay=weight_decays[0], shuffle_labels=True)}


def book(
    *,
    dataset="fashion-mnist",
    n_train=8_000,
    models=("mlp", "cnn", "resnet8"),
    n_members=5,
    n_replicas=3,
    epochs=4,
    trunk_epochs=2,
    linear_epochs=10,
    wide_models=("mlp", "resnet8"),
    widths=(0.5, 1, 2),
    **others,
):
    """Return every config that the chapters of the book use.

    The defaults are those of the chapters' parameter cells: the laptop profile.
    Chapters have further parameters, which do not decide about training; they are
    accepted, so that a profile in params/ serves both.

    Raises
    ------
    ConfigError
        If a name is no parameter of any chapter.
    """
    if unknown := sorted(set(others) - CHAPTER_ONLY):
        known = sorted({*inspect.signature(book).parameters, *CHAPTER_ONLY} - {"others"})
        raise ConfigError(
            "cannot read the parameters of a sweep",
            item=f"name {unknown[0]!r}",
            got="a name that no chapter has",
            wanted=f"one of {', '.join(known)}",
            fix="Correct the name, or remove it.",
        )
    common = {"dataset": dataset, "n_train": n_train, "n_members": n_members}
    deep = pools(models, n_replicas=n_replicas, epochs=epochs, trunk_epochs=trunk_epochs, **common)
    wide = width_pairs(wide_models, widths, n_replicas=n_replicas, epochs=epochs, trunk_epochs=trunk_epochs, **common)
    linear = linear_members(epochs=linear_epochs, **common)
    # A pair at width 1 is part of a pool: dict.fromkeys() names it once.
    return list(dict.fromkeys(c for part in (linear, deep, wide) for members in part.values() for c in members))


def run(configs, store=None, executor=None, *, device="auto"):
    """Train what is missing and return all runs.

    Parameters
    ----------
    configs : sequence of TrainConfig
        A config that occurs twice, or a start that many share, is trained once.
    store : RunStore or None
        None means the store of this checkout.
    executor : concurrent.futures.Executor or None
        Anything with ``submit``, such as `distributed.Client.get_executor`; None
        means a pool of processes on this machine, one per CPU core, or one in all
        for an accelerator.
    device : str
        "auto" takes CUDA, else MPS, else the CPU.

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
            _train_missing(missing, store, executor, device, len(everything))
        else:
            with _local_pool(missing, device) as pool:
                _train_missing(missing, store, pool, device, len(everything))
    return [store[config] for config in configs]


def run_groups(groups, store=None, executor=None, *, device="auto"):
    """Train what is missing in a dict of lists of configs, and return the same dict of lists of `Run`."""
    runs = iter(run([config for group in groups.values() for config in group], store, executor, device=device))
    return {name: [next(runs) for _ in group] for name, group in groups.items()}


def _starts(config):
    """Return the chain of starts below a config, the first one first."""
    return [] if config.start is None else [*_starts(config.start), config.start]


def _local_pool(missing, device):
    on_cpu = device == "cpu" or (
        device == "auto" and not (torch.cuda.is_available() or torch.backends.mps.is_available())
    )
    workers = max(1, _cores() // max(config.threads for config in missing)) if on_cpu else 1
    # "spawn": a fork of a process that has used torch's threads, or CUDA, can hang.
    # Ctrl-C in a terminal reaches the workers too: they end at once and without a traceback,
    # and the epochs they have finished are kept.
    return ProcessPoolExecutor(
        min(workers, len(missing)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_DFL),
    )


def _cores():
    # What this process may use, which in a container is less than what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _train_missing(missing, store, executor, device, n_all):
    bar = tqdm(
        total=len(missing),
        unit="run",
        desc=f"training ({n_all - len(missing)} of {n_all} runs cached)",
        mininterval=0.5 if sys.stderr.isatty() else 15,  # a log is not a terminal: a line now and then
    )
    waiting, futures, failures = list(missing), {}, []
    try:
        while waiting or futures:
            # A run waits until its start is there, so that no worker idles on another's lock.
            ready = [c for c in waiting if c.start is None or c.start in store]
            for config in ready:
                futures[executor.submit(_train_one, config, store.root, store.data_root, device)] = config
            waiting = [config for config in waiting if config not in ready]
            if not futures:
                break  # what still waits has a start that failed
            done, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in done:
                config = futures.pop(future)
                try:
                    bar.set_postfix_str(future.result(), refresh=False)
                except (KeyboardInterrupt, CancelledError):
                    raise
                except BrokenProcessPool as error:
                    raise _failed([(config, "its worker process died")], len(missing)) from error
                except Exception as error:  # one run's failure must not stop the others
                    failures.append((config, f"{type(error).__name__}: {error}"))
                bar.update()
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


def _failed(failures, n):
    config, reason = failures[0]
    return SweepError(
        "cannot finish a sweep",
        item=f"{len(failures)} of {n} runs, first {config.run_id}",
        got=reason,
        wanted="a finished run",
        fix="Finished runs are kept. Mend the cause and run the same command again: it trains only what is missing.",
    )


def _train_one(config, root, data_root, device):
    """Train one run in a worker; return a line about it."""
    torch.set_num_threads(config.threads)  # of this worker: evaluation too must not take its neighbour's core
    run = RunStore(root, data_root).train(config, device=device)
    test, last = run.record["metrics"]["test"], run.record["history"][-1]
    return f"last {config.model}: loss {last['loss']:.2f}, test accuracy {test['accuracy']:.1f} %"
