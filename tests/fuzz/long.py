"""Fuzz every reader for some minutes: python tests/fuzz/long.py --seconds 600. What is found is kept in a file."""

import argparse
import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from hypothesis import HealthCheck, Phase, given, seed, settings
from targets import TARGETS

FOUND = Path(__file__).parents[2] / "book" / "_build" / "fuzz"
BATCH = 500  # examples between two looks at the clock


def fuzz(kind, seconds, folder, counts):
    """Check spoilt files until the time is over; the one at hand lies in ``folder``, for it may end the process."""
    target, end = kind(folder), time.monotonic() + seconds
    at_hand = folder / "at-hand"

    def check(content):
        at_hand.write_bytes(content)
        counts[0 if target.check(content) == "read" else 1] += 1

    number = time.time_ns()
    while time.monotonic() < end:
        number += 1
        plain = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
        rules = settings(max_examples=BATCH, phases=[Phase.generate, Phase.shrink], **plain)
        seed(number)(rules(given(target.strategy)(check)))()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for all readers together")
    seconds, failed = parser.parse_args().seconds, 0
    context = multiprocessing.get_context("spawn")
    for kind in TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            counts = context.Array("q", 2)
            child = context.Process(target=fuzz, args=(kind, seconds / len(TARGETS), Path(folder), counts))
            child.start()
            child.join()
            read, refused = counts
            print(f"{kind.name}: {read + refused} files tried, {refused} refused, {read} read", flush=True)
            if child.exitcode:
                failed += 1
                content = (Path(folder) / "at-hand").read_bytes()
                FOUND.mkdir(parents=True, exist_ok=True)
                path = FOUND / f"{kind.name}-{hashlib.sha256(content).hexdigest()[:8]}"
                path.write_bytes(content)
                print(f"  found: exit code {child.exitcode}; the file is {path}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
