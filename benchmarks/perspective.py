"""What the chapters of a perspective cost from nothing: seconds, and memory at its most.

``perspective.py`` measures the first perspective (templates), ``perspective.py two`` the second (weights or outputs),
``perspective.py three`` the third (magnitude) with the two chapters that follow from all.
Measured in an empty home: images are decoded, what the chapters need is trained, for the first perspective but for the
pools that all chapters share, and the chapters are executed, two at a time; those of the second and third once more,
with members and predictions kept. ``perspective.py train WHICH PART`` is what it calls itself.
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

from wamlib import chapters, sweeps

ROOT = Path(__file__).parents[1]
# The longest chapter first: it shares the machine with all others.
CHAPTERS = {
    "perspective": ("22_templates_in_depth", "20_templates", "21_templates_of_soups"),
    "perspective_two": ("33_architectures", "31_how_many", "37_protocols", "30_same_or_not"),
    "perspective_three": ("40_magnitude", "41_stability", "42_regulariser", "60_recipe", "50_trust"),
}
PARTS = {
    "perspective": {"pools": "shared", "training": "own"},
    "perspective_two": {"training": "all"},
    "perspective_three": {"training": "all"},
}


def perspective(which, home):
    """Return seconds and peak memory in GB, of the largest process and of all together, by part of the work."""
    (home / "raw").mkdir()
    for path in (ROOT / "data" / "raw").iterdir():
        if not path.name.startswith("."):  # not what was decoded before
            (home / "raw" / path.name).symlink_to(path.resolve())
    environment = {**os.environ, "WAMLIB_HOME": str(home), "OMP_NUM_THREADS": "1"}

    def train(part):
        quiet = {"stderr": subprocess.DEVNULL, "check": True}
        subprocess.run([sys.executable, __file__, "train", which, part], env=environment, **quiet)

    def execute():
        command = [sys.executable, ROOT / "book" / "tools" / "execute.py"]
        waiting = [[*command, ROOT / "notebooks" / f"{c}.ipynb", home / "out" / f"{c}.ipynb"] for c in CHAPTERS[which]]
        running = []
        while waiting or running:
            while waiting and len(running) < 2:
                running.append(subprocess.Popen(waiting.pop(0), env=environment))
            ended = [process for process in running if process.poll() is not None]
            if any(process.returncode for process in ended):
                raise SystemExit("a chapter failed")
            running = [process for process in running if process not in ended]
            time.sleep(0.2)

    parts = {name: lambda part=part: train(part) for name, part in PARTS[which].items()} | {"chapters": execute}
    if which != "perspective":
        parts["cached"] = execute
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


def configs_of(which, part):
    """Return what the chapters of a perspective train: "all", what other chapters ask for too, or only they."""
    mine = [stem.partition("_")[2] for stem in CHAPTERS[which]]
    shared = set(chapters.all_runs(chapters=[name for name in chapters.names() if name not in mine]))
    kept = {"all": lambda config: True, "shared": shared.__contains__, "own": lambda config: config not in shared}
    return list(filter(kept[part], chapters.all_runs(chapters=mine)))


def main():
    if sys.argv[1:2] == ["train"]:
        return sweeps.run(configs_of(*sys.argv[2:]))
    which = "_".join(["perspective", *sys.argv[1:2]])
    with tempfile.TemporaryDirectory() as home:
        numbers = {f"{which}_{key}": value for key, value in perspective(which, Path(home)).items()}
    print(f"written to {write(which, numbers)}")
    for name, value in numbers.items():
        print(f"{name}: {value:.3g}")
    return None


if __name__ == "__main__":
    main()
