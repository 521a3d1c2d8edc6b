"""Linear members trained as one problem, against the loop; and what the whole first perspective costs from nothing.

``linear.py`` measures both. The perspective is measured in an empty home: it decodes images, trains what its
chapters need but for the pools that all chapters share, and executes chapters 20 to 22, two at a time.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import torch
from machine import write
from training import matmul_rate

from wamlib import data, linear, sweeps
from wamlib.train import train

ROUNDS, EPOCHS, N_TRAIN = 5, 2, 8_000
ROOT = Path(__file__).parents[1]
CHAPTERS = ("22_templates_in_depth", "20_templates", "21_templates_of_soups")
SHORT = {"fashion-mnist": "fashion", "folder:cifar10-jpeg.zip": "cifar10_jpeg"}


def members(name):
    """Return the members of four seeds over all decays and shuffled labels, as one job of a sweep holds them."""
    groups = sweeps.linear_members(name, n_train=N_TRAIN, n_members=4, epochs=EPOCHS)
    groups.pop(sweeps.RELEASED)
    return [config for group in groups.values() for config in group]


def together(name):
    """Return milliseconds per member and epoch of both trainings, and the joint one's share of the matmul rate."""
    torch.set_num_threads(1)
    dataset, configs = data.load(name, n_train=N_TRAIN), members(name)
    shuffled = dataset.with_shuffled_labels(0)
    alone, joint, rates = [], [], []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        for config in configs[::8]:
            train(config, shuffled if config.shuffle_labels else dataset, device="cpu")
        alone.append((time.perf_counter() - begin) / len(configs[::8]))
        begin = time.perf_counter()
        linear.train_together(configs, dataset, shuffled)
        joint.append((time.perf_counter() - begin) / len(configs))
        rates.append(matmul_rate(seconds=0.3))
    flops = 4 * N_TRAIN * EPOCHS * dataset.train.images[0].numel() * len(dataset.classes)  # forward and backward
    return {
        "loop_milliseconds": 1000 * statistics.median(alone) / EPOCHS,
        "together_milliseconds": 1000 * statistics.median(joint) / EPOCHS,
        "ratio": statistics.median(a / j for a, j in zip(alone, joint)),
        "matmul_share": statistics.median(flops / j / r for j, r in zip(joint, rates)),
    }


def perspective(home):
    """Return seconds of training and of the chapters in an empty home, and the peak memory of one process in GB."""
    (home / "raw").mkdir()
    for path in (ROOT / "data" / "raw").iterdir():
        if not path.name.startswith("."):  # not what was decoded before
            (home / "raw" / path.name).symlink_to(path.resolve())
    environment = {**os.environ, "WAMLIB_HOME": str(home), "OMP_NUM_THREADS": "1"}
    watch = Watch()
    begin = time.perf_counter()
    subprocess.run([sys.executable, __file__, "train", "pools"], env=environment, check=True, stderr=subprocess.DEVNULL)
    pools = time.perf_counter() - begin
    begin = time.perf_counter()
    subprocess.run([sys.executable, __file__, "train", "own"], env=environment, check=True, stderr=subprocess.DEVNULL)
    training = time.perf_counter() - begin
    begin = time.perf_counter()
    command = [sys.executable, ROOT / "book" / "tools" / "execute.py"]
    first, *rest = ([*command, ROOT / "notebooks" / f"{c}.ipynb", home / "out" / f"{c}.ipynb"] for c in CHAPTERS)
    process = subprocess.Popen(first, env=environment)
    for words in rest:
        subprocess.run(words, env=environment, check=True)
    if process.wait():
        raise SystemExit("a chapter failed")
    chapters = time.perf_counter() - begin
    memory, processes = watch.stop()
    numbers = {"pools_seconds": pools, "training_seconds": training, "chapters_seconds": chapters}
    return numbers | {"seconds": training + chapters, "peak_process_gb": memory, "peak_all_gb": processes}


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
    sizes = {name: 8_000 if name == "fashion-mnist" else 4_000 for name in present}
    pairs = sweeps.pairs_by_dataset(sizes, ["mlp", "resnet8"], epochs=4, trunk_epochs=2)
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
    for name in SHORT:
        if data.is_present(name):
            numbers |= {f"linear_{SHORT[name]}_{key}": value for key, value in together(name).items()}
    numbers["linear_rounds"] = ROUNDS
    numbers["linear_peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"written to {write('linear', numbers)}")
    for name, value in numbers.items():
        print(f"{name}: {value:.3g}")
    return None


if __name__ == "__main__":
    main()
