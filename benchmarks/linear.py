"""Linear members trained as one problem, against the loop over them, on one thread; medians of the rounds."""

import statistics
import time

import torch
from machine import write
from training import matmul_rate

from wamlib import data, linear, sweeps
from wamlib.train import train

ROUNDS, EPOCHS, N_TRAIN = 5, 2, 8_000
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


def main():
    numbers = {"linear_rounds": ROUNDS}
    for name in SHORT:
        if data.is_present(name):
            numbers |= {f"linear_{SHORT[name]}_{key}": value for key, value in together(name).items()}
    print(f"written to {write('linear', numbers)}")
    for name, value in numbers.items():
        print(f"{name}: {value:.3g}")


if __name__ == "__main__":
    main()
