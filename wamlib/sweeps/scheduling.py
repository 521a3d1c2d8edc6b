"""Give jobs to an executor, each after what it begins with, and take their outcomes as they come."""

import queue

__all__ = ["schedule"]


def schedule(jobs, submit, is_there):
    """Yield each job that could be begun, with its future, as they end.

    The cost of a job does not depend on how many there are: none is looked at again before what it waits for has ended.

    Parameters
    ----------
    jobs : list of list of TrainConfig
        Each to be done at once.
    submit : callable
        Takes a job and returns a `concurrent.futures.Future`.
    is_there : callable
        Takes a config that a job ended with, and returns whether its run is there now, so that
        what begins with it can go on. A job whose start never comes is not yielded.

    Yields
    ------
    job : list of TrainConfig
    future : concurrent.futures.Future
        Done.
    """
    wanted = {config for job in jobs for config in job}
    starts = [{config.start for config in job} & wanted for job in jobs]
    followers = {}
    for number, waits in enumerate(starts):
        for start in waits:
            followers.setdefault(start, []).append(number)
    ended, futures = queue.SimpleQueue(), {}

    def begin(number):
        futures[number] = submit(jobs[number])
        futures[number].add_done_callback(lambda _: ended.put(number))

    try:
        for number, waits in enumerate(starts):
            if not waits:
                begin(number)
        while futures:
            number = ended.get()
            future = futures.pop(number)
            yield jobs[number], future
            for config in jobs[number]:
                if config in followers and is_there(config):
                    for follower in followers.pop(config):
                        starts[follower].discard(config)
                        if not starts[follower]:
                            begin(follower)
    finally:
        for future in futures.values():
            future.cancel()
