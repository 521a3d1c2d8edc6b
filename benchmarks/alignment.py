"""Matching two networks by weights: seconds, and how many of them are spent in scipy's assignments.

Stock torchvision ResNets with BatchNorm; b is a stranger, or a itself in a hidden order, which must be found.
"""

import statistics
import time

import torch
import torchvision
from machine import write

from wamlib.align import apply, by_weights, permutation, random_permutation

ROUNDS = 3
NAMES = ("resnet18", "resnet50")


def weights(name, seed):
    torch.manual_seed(seed)
    return getattr(torchvision.models, name)().state_dict()


def matched(a, b, model):
    """Return the seconds of a matching, those spent in assignments, and the permutation."""
    spent, solve = [], by_weights.assignment

    def watched(gain):
        begin = time.perf_counter()
        order = solve(gain)
        spent.append(time.perf_counter() - begin)
        return order

    by_weights.assignment = watched
    try:
        begin = time.perf_counter()
        found = permutation(a, b, model)
        return time.perf_counter() - begin, sum(spent), found
    finally:
        by_weights.assignment = solve


def main():
    torch.set_num_threads(2)
    numbers = {"align_rounds": ROUNDS}
    for name in NAMES:
        model = getattr(torchvision.models, name)()
        a, b = weights(name, 0), weights(name, 1)
        hidden = apply(random_permutation(model, seed=2), a)
        for kind, other in (("strangers", b), ("hidden", hidden)):
            rounds = [matched(a, other, model) for _ in range(ROUNDS)]
            numbers[f"align_{name}_{kind}_seconds"] = statistics.median(row[0] for row in rounds)
            numbers[f"align_{name}_{kind}_assignment_percent"] = statistics.median(
                100 * row[1] / row[0] for row in rounds
            )
            if kind == "hidden":
                back = apply(rounds[0][2], other)
                wrong = sum(int((back[key] != a[key]).sum()) for key in a)
                numbers[f"align_{name}_hidden_wrong_weights"] = wrong
        print(", ".join(f"{k} {v:.4g}" for k, v in numbers.items()), flush=True)
    print(f"written to {write('alignment', numbers)}")


if __name__ == "__main__":
    main()
