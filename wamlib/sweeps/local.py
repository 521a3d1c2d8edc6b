"""Processes of this machine as an executor: one per device, replaced when it dies."""

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from concurrent.futures import CancelledError, Executor, Future

import torch

from ..errors import WamlibError

__all__ = ["LocalWorkers", "WorkerDiedError", "slots"]

ATTEMPTS = 3  # of a call whose process dies, as Dask makes them


class WorkerDiedError(WamlibError):
    """The process that worked on a run died, time and again."""


def slots(device, workers, threads):
    """Return the environment of each process: its device, where the machine has several.

    Parameters
    ----------
    device : str
        "auto" and "cuda" mean all GPUs that are visible.
    workers : int or None
        Processes; None means one per GPU, or as many as the CPU cores serve.
    threads : int
        CPU threads that a run may use.

    Returns
    -------
    list of dict of str to str
    """
    n_gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if n_gpus:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = listed.split(",")[:n_gpus] if listed else [str(number) for number in range(n_gpus)]
        # A process that sees one GPU cannot take another's, whatever it calls it.
        return [{"CUDA_VISIBLE_DEVICES": names[number % n_gpus]} for number in range(workers or n_gpus)]
    on_cpu = device == "cpu" or (device == "auto" and not torch.backends.mps.is_available())
    return [{}] * (workers or (max(1, _cores() // threads) if on_cpu else 1))


def _cores():
    # What this process may use, which in a container is less than what the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class LocalWorkers(Executor):
    """Processes that each do one call at a time.

    Unlike `concurrent.futures.ProcessPoolExecutor` it outlives the death of a process (killed for its memory, say):
    another takes its place and does its call again, and the other processes notice nothing.

    Parameters
    ----------
    environments : list of dict of str to str
        One process each, with these variables set before it does anything.
    """

    def __init__(self, environments):
        self._calls, self._closed, self._hopeless = queue.SimpleQueue(), False, None
        self._workers = [_Worker(environment) for environment in environments]
        self._threads = [threading.Thread(target=self._serve, args=(w,), daemon=True) for w in self._workers]
        for thread in self._threads:
            thread.start()

    def submit(self, call, /, *args, **kwargs):
        """Return the future of a call; what it takes and returns must be picklable."""
        future = Future()
        self._calls.put((future, pickle.dumps((call, args, kwargs))))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        """End the processes, after all calls or, if they are cancelled, at once."""
        if cancel_futures:
            self._closed = True
            for worker in self._workers:
                worker.kill()
        for _ in self._threads:
            self._calls.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _serve(self, worker):
        while (item := self._calls.get()) is not None:
            future, content = item
            if self._closed:
                future.cancel()
            elif future.set_running_or_notify_cancel():
                self._do(worker, future, content)
        worker.kill()

    def _do(self, worker, future, content):
        codes = []
        while len(codes) < ATTEMPTS and not self._closed and not self._hopeless:
            try:
                result, error = worker.do(content)
                future.set_exception(error) if error is not None else future.set_result(result)
                return
            except (EOFError, OSError):
                codes.append(worker.bury())
            except Exception as error:  # no process can be started, or its answer not be read
                future.set_exception(error)
                return
        if codes and not worker.ready:  # not this call's fault: no process comes up, so nobody waits for more of them
            self._hopeless = _died(codes)
        future.set_exception(CancelledError() if self._closed else self._hopeless or _died(codes))


def _died(codes):
    said = ", ".join(f"signal {-code}" if code < 0 else f"exit code {code}" for code in codes)
    fix = "Signal 9 mostly means that memory ran out: take fewer --workers. A script that calls wamlib.sweeps.run "
    fix += "needs the line `if __name__ == '__main__':` above the call."
    got = f"{len(codes)} deaths ({said})"
    return WorkerDiedError("cannot train a run", "its worker process", got, "a live process", fix)


class _Worker:
    """A process at the other end of a pipe; it starts with its first call, and again after a death."""

    def __init__(self, environment):
        self.environment, self.process, self.pipe, self.ready = environment, None, None, False
        self.lock, self.closed = threading.Lock(), False

    def do(self, content):
        with self.lock:
            if self.closed:
                raise EOFError
            if self.process is None:
                # "spawn": a fork of a process that has used torch's threads, or CUDA, can hang.
                context = multiprocessing.get_context("spawn")
                self.pipe, other = context.Pipe()
                process = context.Process(target=_work, args=(other, self.environment), daemon=True)
                try:
                    process.start()
                finally:
                    other.close()  # so that the pipe ends with the process
                self.process, self.ready = process, False
        if not self.ready:
            self.pipe.recv_bytes()
            self.ready = True
        self.pipe.send_bytes(content)
        return pickle.loads(self.pipe.recv_bytes())

    def bury(self):
        """Return the exit code of a process that died, and forget it."""
        process = self.process
        if process is None:
            return 0
        process.join(5)
        with self.lock:
            self.process = None
        self.pipe.close()
        return process.exitcode or 0

    def kill(self):
        with self.lock:
            self.closed = True
            if self.process is not None:
                self.process.kill()


def _work(pipe, environment):
    """Do calls until the pipe ends."""
    os.environ.update(environment)
    # Ctrl-C in a terminal reaches workers too: they end at once and without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def follow():
        parent.join()
        os._exit(1)  # with the process that started it, however that ended

    threading.Thread(target=follow, daemon=True).start()
    with contextlib.suppress(EOFError):
        pipe.send_bytes(b"ready")
        while True:
            content = pipe.recv_bytes()
            try:
                call, args, kwargs = pickle.loads(content)
                answer = pickle.dumps((call(*args, **kwargs), None))
            except Exception as error:
                error.add_note("In the worker:\n" + traceback.format_exc())
                answer = pickle.dumps((None, error))
            pipe.send_bytes(answer)
