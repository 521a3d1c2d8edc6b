"""Predictions of a pool: members one by one against members stacked, and an analysis with and without a memory.

On one thread. The stacked members are those of `torch.func`: one batched operation per layer instead of one per
member, where torch has a rule for it; for the pooling of a ResNet and the fused attention of a ViT it warns of none.
The analysis is that of one pool of ten as chapter 31 makes it: metrics of members, soups, and ensembles of subsets.
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import write
from torch.func import functional_call, stack_module_state, vmap

from wamlib import data, ensemble, evaluate, models, sweeps
from wamlib.combinations import combinations, subsets
from wamlib.evidence import Evidence
from wamlib.merge import recalibrate_batchnorm, uniform_soup
from wamlib.modes import eval_mode
from wamlib.pools import Pool
from wamlib.predictions import Predictions
from wamlib.runs import RunStore

ROUNDS, N_MEMBERS, N_IMAGES, BATCHES = 3, 10, 2_000, (64, 250)
MODELS = ("mlp", "cnn", "vgg", "vgg_bn", "resnet8", "densenet", "vit")
POOLS, SIZES, N_SUBSETS = ("mlp", "resnet8"), (2, 3, 5, 7, 10), 4
KINDS = ("uniform soup", "logit ensemble", "probability ensemble")
N_TRAIN, N_EVAL = 2_000, 2_000


def seconds(work):
    """Return the time that a piece of work takes, and what it returns."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


# One pass over the images


def one_by_one(modules, split, batch_size):
    return torch.stack([evaluate.predict_logits(module, split, batch_size) for module in modules])


def stacked(modules, split, batch_size):
    weights, buffers = stack_module_state(modules)
    layout = {"memory_format": torch.channels_last}

    def one(weights, buffers, images):
        return functional_call(modules[0], (weights, buffers), (images,))

    with eval_mode(modules[0]), torch.no_grad():
        parts = [
            vmap(one, in_dims=(0, 0, None))(weights, buffers, images.contiguous(**layout))
            for images, _ in split.batches(batch_size)
        ]
    return torch.cat(parts, 1)


def passes(name, split):
    """Return seconds of both ways, and how much faster stacking is; rounds alternate."""
    modules = [models.build(name, 10, 1, (28, 28), seed=seed).eval() for seed in range(N_MEMBERS)]
    modules = [module.to(memory_format=torch.channels_last) for module in modules]
    numbers = {}
    for batch_size in BATCHES:
        loop, together = [], []
        for index in range(ROUNDS + 1):
            a, expected = seconds(lambda size=batch_size: one_by_one(modules, split, size))
            b, found = seconds(lambda size=batch_size: stacked(modules, split, size))
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
            if index:  # the first round warms up
                loop.append(a)
                together.append(b)
        numbers[f"{name}_batch{batch_size}_loop_seconds"] = statistics.median(loop)
        numbers[f"{name}_batch{batch_size}_stacked_seconds"] = statistics.median(together)
        numbers[f"{name}_batch{batch_size}_ratio"] = statistics.median(a / b for a, b in zip(loop, together))
    return numbers


# The analysis of a pool


def naive(pool, dataset):
    """Run the networks anew for every row of the table: what a script does that keeps nothing."""
    networks, splits = Pool(pool, dataset), (dataset.test, dataset.selection)
    batches = networks.training_batches()

    def predict(state, *, recalibrate=False):
        module = networks.load(state)
        if recalibrate:
            recalibrate_batchnorm(module, batches)
        return [evaluate.predict_logits(module, split) for split in splits]

    def measure(test, selection):
        cooled = test / evaluate.fit_temperature(selection, dataset.selection.labels)
        return evaluate.metrics(test, dataset.test.labels) | {"refitted": evaluate.nll(cooled, dataset.test.labels)}

    def pooled(states, pool):
        return [pool(parts) for parts in zip(*map(predict, states), strict=True)]

    found = []
    for n in SIZES:
        for chosen in subsets(len(pool), n, N_SUBSETS):
            states = [pool[i].state for i in chosen]
            found += [measure(*predict(state)) for state in states]
            found.append(measure(*predict(uniform_soup(states), recalibrate=True)))
            found.append(measure(*pooled(states, ensemble.logit_ensemble)))
            found.append(measure(*pooled(states, lambda parts: ensemble.probability_ensemble(parts).log())))
    return found


def analysis(name, store):
    """Return seconds of the naive loop and of the table: with nothing kept, with predictions, with its record."""
    (group,) = sweeps.pools_by_dataset(
        {"fashion-mnist": N_TRAIN},
        [name],
        starts=["shared start"],
        n_replicas=1,
        n_members=N_MEMBERS,
        epochs=4,
        trunk_epochs=2,
        n_eval=N_EVAL,
    ).values()
    pool = sweeps.run(group, store)
    dataset = data.load("fashion-mnist", n_train=N_TRAIN, n_eval=N_EVAL)
    for run in pool:
        run.state, run.logits  # noqa: B018 (read from disk once, for all)

    asked = {"sizes": list(SIZES), "n_subsets": N_SUBSETS, "kinds": list(KINDS)}

    def table(folder):
        def compute():
            return combinations(Pool(pool, dataset, predictions=Predictions(folder / "predictions")), **asked)

        return Evidence(folder / "records").get(combinations, pool, asked, compute).rows

    rows = {"naive": [], "cold": [], "predictions_kept": [], "table_kept": []}
    for _ in range(ROUNDS):
        rows["naive"].append(seconds(lambda: naive(pool, dataset))[0])
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            rows["cold"].append(seconds(lambda folder=folder: table(folder))[0])
            shutil.rmtree(folder / "records")
            rows["predictions_kept"].append(seconds(lambda folder=folder: table(folder))[0])
            rows["table_kept"].append(seconds(lambda folder=folder: table(folder))[0])
    numbers = {f"{name}_{key}_seconds": statistics.median(values) for key, values in rows.items()}
    for key in ("cold", "predictions_kept", "table_kept"):
        ratios = [a / b for a, b in zip(rows["naive"], rows[key])]
        numbers[f"{name}_{key}_ratio"] = statistics.median(ratios)
    return numbers


def main():
    torch.set_num_threads(1)
    numbers = {"rounds": ROUNDS, "members": N_MEMBERS, "images": N_IMAGES}
    split = data.load("fashion-mnist", n_train=N_TRAIN).test.take(slice(0, N_IMAGES))
    for name in MODELS:
        numbers |= {f"pass_{key}": value for key, value in passes(name, split).items()}
    for name in POOLS:
        numbers |= {f"analysis_{key}": value for key, value in analysis(name, RunStore()).items()}
    numbers = {f"predicting_{key}": value for key, value in numbers.items()}
    print(f"written to {write('predicting', numbers)}")
    for name, value in numbers.items():
        print(f"{name}: {value:.3g}")


if __name__ == "__main__":
    main()
