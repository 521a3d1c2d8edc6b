"""Training speed of CNN and ResNet: against this machine's matmul rate, a bare step, and a plain DataLoader loop.

The bare step is forward, backward and optimizer on one batch that lies ready, again and again: what any loop could
reach at most. With ``--compile`` it is measured compiled as well, and what the first compilation takes. ``--model
NAME`` measures another architecture, such as resnet18_cifar on a GPU; ``--dataset NAME`` other images. Everything is
measured in one process, in turn, several rounds over; medians of the rounds are reported.
"""

import argparse
import os
import statistics
import tempfile
import time

import torch
import torch.nn.functional as F
from machine import write
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from wamlib import data, models
from wamlib.config import TrainConfig
from wamlib.train import pick_device, train

ROUNDS = 5
N_IMAGES = 6_000
BATCH = 64
WORKERS = (0, 2)  # of the plain loop: it gets the better of the two


class Bench:
    """One architecture on one device."""

    def __init__(self, name, dataset, device, precision):
        self.name, self.dataset, self.device, self.precision = name, dataset, device, precision
        self.threads = torch.get_num_threads()
        images, self.labels = dataset.train.images[:BATCH], dataset.train.labels[:BATCH]
        self.images = dataset.train.normalize(images).contiguous(memory_format=torch.channels_last)

    def model(self):
        dataset = self.dataset
        model = models.build(self.name, len(dataset.classes), dataset.in_channels, dataset.image_size, seed=0)
        return model.to(self.device, memory_format=torch.channels_last).train()

    def flops_per_image(self):
        """Return FLOPs of one forward and backward pass, per image."""
        with FlopCounterMode(display=False) as counter:
            F.cross_entropy(self.model()(self.images), self.labels).backward()
        return counter.get_total_flops() / BATCH

    def ours(self, augment):
        """Return images per second of wamlib.train, the slower first epoch left out."""
        config = TrainConfig(
            dataset=self.dataset.name,
            n_train=N_IMAGES,
            model=self.name,
            epochs=3,
            augment=augment,
            batch_size=BATCH,
            threads=self.threads,
            precision=self.precision,
        )
        _, history = train(config, self.dataset, device=self.device)
        return N_IMAGES / statistics.median(row["seconds"] for row in history[1:])

    def bare(self, compiled=False, n_steps=60):
        """Return images per second of a bare step, and seconds that the first one took."""
        model = self.model()
        forward = torch.compile(model, dynamic=False) if compiled else model
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=self.device.type in ("cpu", "cuda")
        )
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

        def step():
            with autocast:
                loss = F.cross_entropy(forward(self.images), self.labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        def timed(n):
            self.wait()
            begin = time.perf_counter()
            for _ in range(n):
                step()
            self.wait()
            return time.perf_counter() - begin

        first = timed(1)
        timed(5)
        return BATCH * n_steps / timed(n_steps), first

    def plain(self, augment, workers):
        """Return images per second of the usual loop: DataLoader, torchvision transforms, torch.optim.SGD."""
        pad, size = max(1, self.dataset.image_size[0] // 8), self.dataset.image_size
        moves = [transforms.RandomCrop(size, padding=pad), transforms.RandomHorizontalFlip()]
        mean, std = (getattr(self.dataset.train, name).flatten().cpu() / 255 for name in ("mean", "std"))
        last = [transforms.ToTensor(), transforms.Normalize(mean.tolist(), std.tolist())]
        transform = transforms.Compose([*(moves if augment != "none" else []), *last])
        loader = DataLoader(
            Images(self.dataset.train, transform),
            BATCH,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        model = self.model().to(memory_format=torch.contiguous_format)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        seconds = []
        for _ in range(2):
            self.wait()
            begin = time.perf_counter()
            for images, labels in loader:
                optimizer.zero_grad()
                F.cross_entropy(model(images.to(self.device)), labels.to(self.device)).backward()
                optimizer.step()
            self.wait()
            seconds.append(time.perf_counter() - begin)
        return N_IMAGES / seconds[-1]  # the first has the start of the workers in it

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Images(TorchDataset):
    """Images one by one as PIL, as torchvision's own data sets give them."""

    def __init__(self, split, transform):
        self.images, self.labels, self.transform = split.images.cpu(), split.labels.cpu(), transform
        self.to_pil = transforms.ToPILImage()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.to_pil(self.images[index])), int(self.labels[index])


def matmul_rate(device, size=2048, seconds=1.0):
    """Return float32 FLOP/s of a square matrix product, the best of this round's calls."""
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def measure(bench, compiled):
    """Return the numbers of one architecture."""
    rows = []
    for number in range(ROUNDS):
        row = {"matmul": matmul_rate(bench.device), "bare": bench.bare()[0]}
        for augment in ("none", "flip-crop"):
            row[f"ours, {augment}"] = bench.ours(augment)
            row[f"plain, {augment}"] = max(bench.plain(augment, workers) for workers in WORKERS)
        if compiled:
            row["compiled"], row["compiling"] = bench.bare(compiled=True)
        rows.append(row)
        shown = ", ".join(f"{key} {value:.4g}" for key, value in row.items())
        print(f"{bench.name}, round {number + 1} of {ROUNDS}: {shown}", flush=True)

    def median(value):
        return statistics.median(value(row) for row in rows)

    flops = bench.flops_per_image()
    numbers = {
        "flops_per_image": flops,
        "images_per_second": median(lambda r: r["ours, none"]),
        "matmul_gflops": median(lambda r: r["matmul"]) / 1e9,
        "share_of_matmul_percent": 100 * median(lambda r: r["ours, none"] * flops / r["matmul"]),
        "share_of_bare_percent": 100 * median(lambda r: r["ours, none"] / r["bare"]),
        "share_of_bare_augmented_percent": 100 * median(lambda r: r["ours, flip-crop"] / r["bare"]),
        "times_plain_loop": median(lambda r: r["ours, none"] / r["plain, none"]),
        "times_plain_loop_augmented": median(lambda r: r["ours, flip-crop"] / r["plain, flip-crop"]),
    }
    if compiled:
        numbers["compiled_times_bare"] = median(lambda r: r["compiled"] / r["bare"])
        numbers["compiling_seconds"] = rows[0]["compiling"]  # later ones find what the first has left
    return numbers


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", help="cnn and resnet8 unless given")
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    device = pick_device()
    dataset = data.load(arguments.dataset, n_train=N_IMAGES).to(device)
    numbers, cache = {"train_rounds": ROUNDS}, tempfile.TemporaryDirectory()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache.name  # an empty one: what was compiled before is no news
    for name in arguments.model or ["cnn", "resnet8"]:
        found = measure(Bench(name, dataset, device, arguments.precision), arguments.compile)
        prefix = "train" if name == "cnn" else f"train_{name}"
        numbers |= {f"{prefix}_{key}": value for key, value in found.items()}
    print("\n".join(f"{name}: {value:.4g}" for name, value in numbers.items()))
    print(f"written to {write('training', numbers)}")


if __name__ == "__main__":
    main()
