"""Members per hour by architecture, number of members K and method: which way to train a pool is fastest here.

Methods: a loop over members with all threads; processes of one thread each, one per core (or ``--processes N`` on one
GPU); all K as one program (`wamlib.stacked`); and, for linear members of one seed that differ in weight decay, all as
one problem (`wamlib.linear`). The same members, the same epochs; each method runs ``ROUNDS`` times
in turn, the medians are reported. What a process needs to start is not counted: a sweep's workers are reused.
"""

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch
from machine import write

from wamlib import data, linear
from wamlib.config import TrainConfig
from wamlib.stacked import can_stack, train_stacked
from wamlib.train import pick_device, train

ROUNDS = 3
N_TRAIN = 1_000
EPOCHS = 2
MODELS = ("linear", "deep_linear", "mlp", "resnet8")
SIZES = (3, 10)


def configs(model, k, batch_size, threads):
    common = {"dataset": "fashion-mnist", "n_train": N_TRAIN, "epochs": EPOCHS, "batch_size": batch_size}
    return [TrainConfig(model=model, seed=seed, init_seed=seed, threads=threads, **common) for seed in range(k)]


def one(config):
    return train(config, data.load("fashion-mnist", n_train=N_TRAIN), device="auto")[1][-1]["loss"]


def ready(_):
    data.load("fashion-mnist", n_train=N_TRAIN)
    time.sleep(0.5)  # so that each worker takes one


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    device, numbers = pick_device(), {"stacking_rounds": ROUNDS}
    images = data.load("fashion-mnist", n_train=N_TRAIN).to(device)
    threads = torch.get_num_threads()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
        list(pool.map(ready, range(arguments.processes)))
        for model in MODELS:
            for k in SIZES:
                wide = configs(model, k, arguments.batch_size, threads)
                narrow = [replace(config, threads=1) for config in wide]
                methods = {
                    "loop": lambda wide=wide: [train(config, images, device=device) for config in wide],
                    "processes": lambda narrow=narrow: list(pool.map(one, narrow)),
                }
                if linear.can_train_together(wide[0]):  # one product serves all members of a seed
                    same = [replace(config, seed=0, init_seed=0, weight_decay=0.1**d) for d, config in enumerate(wide)]
                    methods["one problem"] = lambda same=same: linear.train_together(same, images)
                if can_stack(wide[0]):
                    methods["stacked"] = lambda wide=wide: train_stacked(wide, images, device=device)
                seconds = {name: [] for name in methods}
                for _ in range(ROUNDS):
                    for name, work in methods.items():
                        begin = time.perf_counter()
                        work()
                        seconds[name].append(time.perf_counter() - begin)
                for name, several in seconds.items():
                    rate = 3600 * k / statistics.median(several)
                    numbers[f"stacking_{model}_{k}_{name.replace(' ', '_')}"] = rate
                    print(f"{model}, K = {k}, {name}: {rate:,.0f} members an hour", flush=True)
    print(f"written to {write('stacking', numbers)}")


if __name__ == "__main__":
    main()
