"""Merging files: against the time to stream their bytes once, and against timm's and mergekit's averaging.

ResNet-18 checkpoints in safetensors, page cache warm, everything timed in turn, several rounds over; medians
of the rounds are reported. What runs in this process is timed without imports; the command lines are timed with
them, each against the other. ``python benchmarks/merging.py FOLDER`` writes its 6 GB of checkpoints there.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torchvision
from machine import write
from safetensors.torch import load_file, save_file

from wamlib.merge import merge_files

ROUNDS, PEER_ROUNDS = 7, 3
COUNTS = (8, 32, 128)
N = 32
DENSITY = 0.2
BIN = Path(sys.executable).parent

MEMORY = """
import sys, threading, time
from wamlib.merge import merge_files

def private():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) * 1024

out, method, base, *paths = sys.argv[1:]
settings = {} if method == "uniform" else {"base": base, "density": 0.2}
merge_files(paths[:2], out, method, **settings)  # what the libraries take once is not counted
peak = before = private()
running = True

def watch():
    global peak
    while running:
        peak = max(peak, private())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
merge_files(paths, out, method, **settings)
running = False
watcher.join()
print(peak - before)
"""


def make(folder):
    """Write a base and its members, unless they are there; return their paths."""
    torch.manual_seed(0)
    base = torchvision.models.resnet18().state_dict()
    paths = [folder / f"{index}.safetensors" for index in range(max(COUNTS))]
    if not paths[-1].exists():
        save_file(base, folder / "base.safetensors")
        for path in paths:
            save_file(
                {k: t + 0.01 * torch.randn_like(t) if t.is_floating_point() else t for k, t in base.items()}, path
            )
    return folder / "base.safetensors", paths


def stream(paths):
    """Touch every byte once: reduce each file, mapped into memory, to one number."""

    def reduce(path):
        words = np.memmap(path, dtype=np.uint64, mode="r", shape=(path.stat().st_size // 8,))
        return np.bitwise_xor.reduce(words)

    return list(map(reduce, paths))


def stream_on_two_threads(paths):
    with ThreadPoolExecutor(2) as executor:
        return list(executor.map(lambda path: stream([path]), paths))


def by_timm(paths, out):
    """The steps of timm's avg_checkpoints script, which its package does not hold, with timm's own loader."""
    from timm.models import load_state_dict

    total, counts = {}, {}
    for path in paths:
        for key, tensor in load_state_dict(path).items():
            if key in total:
                total[key] += tensor.to(torch.float64)
                counts[key] += 1
            else:
                total[key], counts[key] = tensor.to(torch.float64), 1
    limits = torch.finfo(torch.float32)
    for key in total:
        total[key] = (total[key] / counts[key]).clamp(limits.min, limits.max).to(torch.float32)
    save_file(total, out)


def by_mergekit(paths, out, method="linear", base=None):
    """mergekit's function for state dicts in memory."""
    from mergekit.merge_methods.api import merge_state_dicts

    states = [load_file(path) for path in ([] if base is None else [base]) + paths]
    parameters = {"weight": 1.0} if base is None else {"weight": 1.0, "density": DENSITY}
    save_file(merge_state_dicts(states, method, parameters=parameters, base=None if base is None else 0), out)


def by_mergekit_command(paths, folder, method="linear", base=None):
    """mergekit's command line for raw PyTorch checkpoints."""
    density = "" if base is None else f", density: {DENSITY}"
    rows = "\n".join(f"  - {{model: {path}, parameters: {{weight: 1.0{density}}}}}" for path in paths)
    text = f"merge_method: {method}\ndtype: float32\nmodels:\n{rows}\n" + (f"base_model: {base}\n" if base else "")
    (folder / "config.yml").write_text(text)
    subprocess.run(
        [BIN / "mergekit-pytorch", folder / "config.yml", folder / "mergekit"], check=True, capture_output=True
    )


def by_command(paths, out, *words):
    subprocess.run([BIN / "wamlib", "merge", *paths, "-o", out, *words], check=True, capture_output=True)


def timed(function, *arguments, **more):
    begin = time.perf_counter()
    function(*arguments, **more)
    return time.perf_counter() - begin


def rounds(n, **jobs):
    """Return the median seconds of each job, run in turn."""
    seconds = {name: [] for name in jobs}
    for number in range(n):
        for name, job in jobs.items():
            seconds[name].append(timed(job))
        print(f"round {number + 1} of {n}: " + ", ".join(f"{k} {v[-1]:.2f}" for k, v in seconds.items()), flush=True)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory(out, method, base, paths):
    """Return the private bytes that a merge takes at its most, in a process of its own."""
    command = [sys.executable, "-c", MEMORY, *map(str, [out, method, base, *paths])]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(folder):
    base, paths = make(folder)
    out, some = folder / "out.safetensors", paths[:N]
    stream([base, *paths])  # warm
    ours = rounds(
        ROUNDS,
        floor_one_thread=lambda: stream(some),
        floor_two_threads=lambda: stream_on_two_threads(some),
        mean=lambda: merge_files(some, out, checksums=False),
        mean_checksums=lambda: merge_files(some, out),
        ties=lambda: merge_files(some, out, "ties", base=base, density=DENSITY, checksums=False),
        ties_checksums=lambda: merge_files(some, out, "ties", base=base, density=DENSITY),
        mean_8=lambda: merge_files(paths[: COUNTS[0]], out, checksums=False),
        mean_128=lambda: merge_files(paths, out, checksums=False),
    )
    floor = min(ours["floor_one_thread"], ours["floor_two_threads"])
    theirs = rounds(
        PEER_ROUNDS,
        mean=lambda: merge_files(some, out, checksums=False),
        mean_checksums=lambda: merge_files(some, out),
        timm=lambda: by_timm(some, out),
        mergekit=lambda: by_mergekit(some, out),
        ties=lambda: merge_files(some, out, "ties", base=base, density=DENSITY, checksums=False),
        mergekit_ties=lambda: by_mergekit(some, out, "ties", base),
        command=lambda: by_command(some, out),
        mergekit_command=lambda: by_mergekit_command(some, folder),
        command_ties=lambda: by_command(some, out, "--method", "ties", "--base", base, "--density", str(DENSITY)),
        mergekit_command_ties=lambda: by_mergekit_command(some, folder, "ties", base),
    )
    numbers = {
        "merge_members": N,
        "merge_megabytes": sum(path.stat().st_size for path in some) / 1e6,
        "merge_rounds": ROUNDS,
        **{f"merge_{name}_seconds": value for name, value in ours.items()},
        "merge_mean_times_floor": ours["mean"] / floor,
        "merge_mean_checksums_times_floor": ours["mean_checksums"] / floor,
        "merge_ties_times_mean": ours["ties"] / ours["mean"],
        **{f"merge_against_{name}_seconds": value for name, value in theirs.items()},
        "merge_timm_times_mean": theirs["timm"] / theirs["mean"],
        "merge_timm_times_mean_checksums": theirs["timm"] / theirs["mean_checksums"],
        "merge_mergekit_times_mean": theirs["mergekit"] / theirs["mean"],
        "merge_mergekit_times_mean_checksums": theirs["mergekit"] / theirs["mean_checksums"],
        "merge_mergekit_command_times_command": theirs["mergekit_command"] / theirs["command"],
        "merge_mergekit_ties_times_ties": theirs["mergekit_ties"] / theirs["ties"],
        "merge_mergekit_command_ties_times_command": theirs["mergekit_command_ties"] / theirs["command_ties"],
        "merge_output_megabytes": out.stat().st_size / 1e6,
    }
    for method in ("uniform", "ties"):
        for count in COUNTS:
            peak = peak_memory(out, method, base, paths[:count])
            numbers[f"merge_{method}_peak_megabytes_{count}"] = peak / 1e6
    print("\n".join(f"{name}: {value:.4g}" for name, value in numbers.items()))
    print(f"written to {write('merging', numbers)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.makedirs(sys.argv[1], exist_ok=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
