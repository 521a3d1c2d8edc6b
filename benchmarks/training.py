"""Training speed of the small CNN: against this machine's matmul rate, and against a plain DataLoader loop.

Everything is measured in one process, in turn, several rounds over; medians of the rounds are reported.
"""

import statistics
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
from wamlib.train import train

ROUNDS = 5
N_IMAGES = 6_000
THREADS = 2


def matmul_rate(size=2048, seconds=1.0):
    """Return float32 FLOP/s of a square matrix product, the best of this round's calls."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def flops_per_image(dataset, batch=64):
    """Return FLOPs of one forward and backward pass of the CNN, per image."""
    model = models.build("cnn", 10, dataset.in_channels, dataset.image_size, seed=0)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(
            model(torch.randn(batch, dataset.in_channels, *dataset.image_size)), torch.zeros(batch).long()
        ).backward()
    return counter.get_total_flops() / batch


def ours(dataset, augment):
    """Return images per second of wamlib.train, the slower first epoch left out."""
    config = TrainConfig(dataset=dataset.name, n_train=N_IMAGES, epochs=3, augment=augment, threads=THREADS)
    _, history = train(config, dataset, device="cpu")
    return N_IMAGES / statistics.median(row["seconds"] for row in history[1:])


class Images(TorchDataset):
    """Images one by one as PIL, as torchvision's own data sets give them."""

    def __init__(self, split, transform):
        self.images, self.labels, self.transform = split.images, split.labels, transform
        self.to_pil = transforms.ToPILImage()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(self.to_pil(self.images[index])), int(self.labels[index])


def plain(dataset, augment, workers):
    """Return images per second of the usual loop: DataLoader, torchvision transforms, torch.optim.SGD."""
    steps = [transforms.RandomCrop(28, padding=3), transforms.RandomHorizontalFlip()] if augment != "none" else []
    mean, std = (dataset.train.mean / 255).tolist(), (dataset.train.std / 255).tolist()
    transform = transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])
    loader = DataLoader(
        Images(dataset.train, transform), 64, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    model = models.build("cnn", 10, dataset.in_channels, dataset.image_size, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - begin)
    return N_IMAGES / statistics.median(seconds[1:])


def main():
    torch.set_num_threads(THREADS)
    dataset = data.load("fashion-mnist", n_train=N_IMAGES)
    flops = flops_per_image(dataset)
    rows = []
    for number in range(ROUNDS):
        row = {"matmul": matmul_rate()}
        for augment in ("none", "flip-crop"):
            row[f"ours, {augment}"] = ours(dataset, augment)
            # No worker and two workers: the peer gets the better of the two.
            row[f"plain, {augment}"] = max(plain(dataset, augment, workers) for workers in (0, 2))
        rows.append(row)
        print(f"round {number + 1} of {ROUNDS}: " + ", ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)

    def median(value):
        return statistics.median(value(row) for row in rows)

    numbers = {
        "train_flops_per_image": flops,
        "train_images_per_second": median(lambda r: r["ours, none"]),
        "train_matmul_gflops": median(lambda r: r["matmul"]) / 1e9,
        "train_share_of_matmul_percent": 100 * median(lambda r: r["ours, none"] * flops / r["matmul"]),
        "train_times_plain_loop": median(lambda r: r["ours, none"] / r["plain, none"]),
        "train_times_plain_loop_augmented": median(lambda r: r["ours, flip-crop"] / r["plain, flip-crop"]),
        "train_rounds": ROUNDS,
    }
    print("\n".join(f"{name}: {value:.4g}" for name, value in numbers.items()))
    print(f"written to {write('training', numbers)}")


if __name__ == "__main__":
    main()
