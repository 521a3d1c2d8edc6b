"""A Dask cluster as an executor."""

import contextlib
import logging
import re

from ..errors import ConfigError
from ..provenance import describe_versions

__all__ = ["cluster"]

DOING = "cannot use a cluster"

CONNECT_SECONDS, WORKER_SECONDS = 15, 60


@contextlib.contextmanager
def cluster(address, *, gpus=None):
    """Yield a `concurrent.futures` executor whose workers are those of a Dask cluster.

    A run whose worker dies is given to another one, three times at most.

    Parameters
    ----------
    address : str
        Of the scheduler, as ``tcp://host:8786``.
    gpus : float or None
        The least ``GPU`` that a worker must declare (``dask worker ... --resources GPU=1``) to be given runs: 1 keeps
        large members from workers that are four to a GPU and declare 0.25 each. None means any worker with some,
        or, where none declares any, any worker.

    Raises
    ------
    ConfigError
        If `distributed` is not installed, no scheduler answers, no worker comes, a worker has several threads, or
        lacks this version of wamlib, torch or numpy.
    """
    if not re.fullmatch(r"(tcp|tls|ucx|ws|wss)://[^\s/]+:\d+", address):
        fix = "Give the address that `dask scheduler` prints."
        raise ConfigError(DOING, "the address", repr(address), "one such as tcp://host:8786", fix)
    try:
        import distributed
    except ImportError as error:
        got, fix = "a package that is not installed", "Install it: pip install 'wamlib[dask]'."
        raise ConfigError(DOING, "distributed", got, "distributed", fix) from error
    # What goes wrong is said once, by the error that is raised. (The package gives its parts levels of their own.)
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        got = f"no answer ({type(error).__name__}: {error})"
        fix = "Start one with `dask scheduler`, and give the address that it prints."
        raise ConfigError(DOING, address, got, "a scheduler", fix) from error
    with client:
        resources = _check_workers(client, address, gpus)
        yield client.get_executor(pure=False, resources=resources)


def _check_workers(client, address, gpus):
    """Return what a run asks of a worker, now that there is one that can do it."""
    start = f"dask worker {address} --nthreads 1 --resources GPU=1"
    try:
        client.wait_for_workers(1, timeout=WORKER_SECONDS)
    except TimeoutError as error:
        fix = f"Start workers: `{start}` (without --resources where there is no GPU)."
        raise ConfigError(DOING, address, f"no worker within {WORKER_SECONDS} s", "a worker", fix) from error
    workers = client.scheduler_info(n_workers=-1)["workers"]
    for name, worker in workers.items():
        if worker["nthreads"] != 1:
            wanted = "one thread, for trainings of one process would share its random numbers"
            fix = f"Start workers with one thread: `{start}`, or `--nworkers 4 --nthreads 1` for four of them."
            raise ConfigError(DOING, name, f"a worker of {worker['nthreads']} threads", wanted, fix)
    own = dict(describe_versions())
    del own["python"]
    for name, found in client.run(describe_versions, on_error="return").items():
        found = found if isinstance(found, dict) else {}  # an error where wamlib is not installed
        other = next((f"{key} {found.get(key, 'missing')}" for key in own if found.get(key) != own[key]), None)
        if other:
            wanted = ", ".join(f"{key} {version}" for key, version in own.items())
            fix = "Install the same versions there as here (requirements.lock), and start the worker again."
            raise ConfigError(DOING, name, f"a worker with {other}", wanted, fix)
    shares = [share for worker in workers.values() if (share := worker["resources"].get("GPU"))]
    if gpus is None:
        return {"GPU": min(shares)} if shares else None
    if not any(share >= gpus for share in shares):
        got, wanted = f"workers with GPU={max(shares, default=0)}", f"one with GPU={gpus} or more"
        fix = "Ask for a smaller share of a GPU (--gpus), or start workers that declare more."
        raise ConfigError(DOING, address, got, wanted, fix)
    return {"GPU": gpus}
