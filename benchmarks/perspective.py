"""What the chapters on templates cost from nothing: seconds, and memory at its most.

Measured in an empty home: images are decoded, what the chapters need is trained but for the pools that all chapters
share, and chapters 20 to 22 are executed, two at a time. ``perspective.py train PART`` is what it calls itself.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from machine import write

from wamlib import data, sweeps

ROOT = Path(__file__).parents[1]
CHAPTERS = ("22_templates_in_depth", "20_templates", "21_templates_of_soups")


def perspective(home):
    """Return seconds and peak memory in GB, of the largest process and of all together, by part of the work."""
    (home / "raw").mkdir()
    for path in (ROOT / "data" / "raw").iterdir():
        if not path.name.startswith("."):  # not what was decoded before
            (home / "raw" / path.name).symlink_to(path.resolve())
    environment = {**os.environ, "WAMLIB_HOME": str(home), "OMP_NUM_THREADS": "1"}

    def train(part):
        quiet = {"stderr": subprocess.DEVNULL, "check": True}
        subprocess.run([sys.executable, __file__, "train", part], env=environment, **quiet)

    def execute():
        command = [sys.executable, ROOT / "book" / "tools" / "execute.py"]
        first, *rest = ([*command, ROOT / "notebooks" / f"{c}.ipynb", home / "out" / f"{c}.ipynb"] for c in CHAPTERS)
        process = subprocess.Popen(first, env=environment)
        for words in rest:
            subprocess.run(words, env=environment, check=True)
        if process.wait():
            raise SystemExit("a chapter failed")

    parts = {"pools": lambda: train("pools"), "training": lambda: train("own"), "chapters": execute}
    numbers = {}
    for name, work in parts.items():
        watch, begin = Watch(), time.perf_counter()
        work()
        numbers[f"{name}_seconds"] = time.perf_counter() - begin
        numbers[f"{name}_peak_process_gb"], numbers[f"{name}_peak_all_gb"] = watch.stop()
        print(name, {key: round(value, 2) for key, value in numbers.items() if key.startswith(name)}, flush=True)
    return numbers | {"seconds": numbers["training_seconds"] + numbers["chapters_seconds"]}


class Watch:
    """Follows the memory of the processes below this one: of the largest, and of all together."""

    def __init__(self):
        self.largest = self.total = 0
        self.going = True
        self.thread = threading.Thread(target=self._follow)
        self.thread.start()

    def _follow(self):
        while self.going:
            sizes = []
            for process in psutil.Process().children(recursive=True):
                try:
                    sizes.append(process.memory_full_info().pss)  # shared pages count once
                except psutil.Error:
                    continue
            self.largest, self.total = max([self.largest, *sizes]), max(self.total, sum(sizes))
            time.sleep(2)  # looking at the pages of a large process takes time itself

    def stop(self):
        self.going = False
        self.thread.join()
        return self.largest / 1e9, self.total / 1e9


def train_part(part):
    """Train the pairs that other chapters share, or what belongs to the perspective alone."""
    present = [name for name in sweeps.DATASETS if data.is_present(name)]
    sizes = {name: 8_000 if name == "fashion-mnist" else 3_000 for name in present}
    recipe = {"models": ["mlp", "resnet8"], "epochs": 4, "trunk_epochs": 2}
    pairs = sweeps.pools_by_dataset(sizes, **recipe)
    pairs |= sweeps.pools_by_dataset({"fashion-mnist": 8_000}, starts=["shared init"], **recipe)
    configs = [c for key, pair in pairs.items() for c in pair if part == "own" or key[0] == "fashion-mnist"]
    if part == "own":
        for name in present:
            configs += [c for group in sweeps.linear_members(name, n_train=8_000).values() for c in group]
    sweeps.run(configs)


def main():
    if sys.argv[1:2] == ["train"]:
        return train_part(sys.argv[2])
    with tempfile.TemporaryDirectory() as home:
        numbers = {f"perspective_{key}": value for key, value in perspective(Path(home)).items()}
    print(f"written to {write('perspective', numbers)}")
    for name, value in numbers.items():
        print(f"{name}: {value:.3g}")
    return None


if __name__ == "__main__":
    main()
