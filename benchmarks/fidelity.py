"""Fidelity: every merge against the tools that people use, on the same float32 members.

Writes benchmarks/results/fidelity.csv; the exit code is 1 if a difference exceeds its row's tolerance.
A row without a tolerance shows where a tool differs by design, and its note says how.
"""

import csv
import sys
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wamlib import merge, models

HERE = Path(__file__).parent
RESULT = HERE / "results" / "fidelity.csv"
TOLERANCE = 1e-6
COLUMNS = ("method", "reference", "scope", "largest_difference", "note")
ARCHITECTURE = "resnet8"
DECAY, DENSITY, SCALE, ALPHA = 0.9, 0.2, 0.7, 0.3

# The merges once more, in numpy float64; the tests hold them too.
sys.path.insert(0, str(HERE.parent / "tests"))
import references  # noqa: E402


@dataclass(frozen=True)
class Row:
    """One comparison; ``tolerance`` is None where the two differ by design."""

    method: str
    reference: str
    scope: str
    largest_difference: float
    note: str = ""
    tolerance: float | None = TOLERANCE


@dataclass(frozen=True)
class Pool:
    """Members of one base: a common and an own change of every weight, wide enough to leave SLERP an angle."""

    base: dict
    members: list

    def model(self, state):
        model = models.build(ARCHITECTURE, 10, 1, (12, 12), seed=0)
        model.load_state_dict(state)
        return model


def make_pool(n=4, wide=0.5, seed=0):
    """Return the weights of small residual networks with BatchNorm, seeded, one tensor after the other."""
    generator = torch.Generator().manual_seed(seed)
    base = models.build(ARCHITECTURE, 10, 1, (12, 12), seed=seed).state_dict()

    def draw(tensor):
        return torch.randn(tensor.shape, generator=generator)

    floats = {key: tensor for key, tensor in base.items() if tensor.is_floating_point()}
    size = {key: wide * tensor.square().mean().sqrt().clamp_min(0.05) for key, tensor in floats.items()}
    common = {key: size[key] * draw(tensor) for key, tensor in floats.items()}
    members = []
    for _ in range(n):
        moved = {key: tensor + common[key] + size[key] * draw(tensor) for key, tensor in floats.items()}
        moved |= {key: moved[key].abs() + 0.1 for key in moved if key.endswith("running_var")}
        members.append({**base, **moved})
    return Pool(base, members)


def weights(state):
    """Return the learnable tensors: the other tools treat running statistics like weights, or leave them out."""
    return {key: tensor for key, tensor in state.items() if merge.is_learnable(key)}


def difference(ours, theirs):
    """Return the largest absolute difference over the tensors of the reference, in float64."""
    assert theirs, "a reference of no tensor proves nothing"
    worst = 0.0
    for key, wanted in theirs.items():
        got, wanted = ours[key].double(), torch.as_tensor(wanted).double()
        assert got.shape == wanted.shape, key
        # torch's max, unlike Python's, lets NaN through.
        worst = torch.stack([torch.tensor(worst).double(), *(got - wanted).abs().flatten()]).max().item()
    return worst


def by_numpy(pool):
    """Compare with the papers' formulas in numpy float64."""
    base, members = pool.base, pool.members
    a, b = members[:2]
    tool = f"numpy {version('numpy')}, float64"
    yield Row("uniform_soup", tool, "", difference(merge.uniform_soup(members), references.uniform(members)))
    yield Row("interpolate", tool, "", difference(merge.interpolate(a, b, ALPHA), references.ema([a, b], 1 - ALPHA)))
    yield Row("RunningAverage (SWA)", tool, "", difference(running(members, None), references.uniform(members)))
    yield Row("RunningAverage (EMA)", tool, "", difference(running(members, DECAY), references.ema(members, DECAY)))
    added = references.task_arithmetic(base, members, SCALE)
    yield Row("task_arithmetic", tool, "", difference(merge.task_arithmetic(base, members, SCALE), added))
    for scope in ("global", "tensor"):
        trimmed = references.ties(base, members, DENSITY, SCALE, scope)
        yield Row("ties", tool, scope, difference(merge.ties(base, members, DENSITY, SCALE, scope), trimmed))
        arc = references.slerp(a, b, ALPHA, scope)
        yield Row("slerp", tool, scope, difference(merge.slerp(a, b, ALPHA, scope), arc))
    masked = references.dare(base, members, DENSITY, 0, SCALE)
    yield Row("dare", tool, "tensor", difference(merge.dare(base, members, DENSITY, 0, SCALE), masked))
    stock = references.model_stock(base, members)
    yield Row("model_stock", tool, "tensor", difference(merge.model_stock(base, members), stock))
    images = torch.randn(400, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    nets = [pool.model(member) for member in members]
    infos = [merge.fisher_diagonal(net, [images[:8]]) for net in nets]
    own = references.fisher_diagonal(nets[0], images[:8])
    largest = max(tensor.max().item() for tensor in own.values())
    scaled = ({key: tensor / largest for key, tensor in found.items()} for found in (infos[0], own))
    yield Row("fisher_diagonal", tool, "", difference(*scaled), "torch autograd in float64; of the largest entry")
    weighted = references.fisher(members, infos, [1.0] * len(members), 1e-6)
    yield Row("fisher", tool, "", difference(merge.fisher(members, infos), weighted))
    grams = [merge.gram_matrices(net, [images]) for net in nets]
    yield Row("regmean", tool, "", difference(merge.regmean(members, grams), references.regmean(members, grams, 0.9)))
    labels = torch.arange(len(images)) % 10
    learned = merge.learned_soup(members, nets[0], [(images, labels)], per="tensor", epochs=2)
    mixed = references.mixed(members, learned.shares)
    yield Row("learned_soup", tool, "tensor", difference(learned.state, mixed), "mixed by the shares that it learned")


def by_files(pool):
    """Compare the merges of files with those in memory."""
    base, members = pool.base, pool.members
    merges = {
        "uniform": (merge.uniform_soup(members), {}),
        "task_arithmetic": (merge.task_arithmetic(base, members, SCALE), {"scale": SCALE}),
        "ties": (merge.ties(base, members, DENSITY, SCALE), {"density": DENSITY, "scale": SCALE}),
        "dare": (merge.dare(base, members, DENSITY, 0), {"density": DENSITY, "seed": 0}),
        "model_stock": (merge.model_stock(base, members), {}),
        "slerp": (merge.slerp(*members[:2], ALPHA), {"alpha": ALPHA}),
    }
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{index}.safetensors" for index in range(len(members) + 1)]
        for path, state in zip(paths, [base, *members], strict=True):
            save_file(state, path)
        for method, (ours, settings) in merges.items():
            inputs = paths[1:3] if method == "slerp" else paths[1:]
            start = None if method in ("uniform", "slerp") else paths[0]
            merge.merge_files(inputs, Path(name) / "out.safetensors", method, base=start, **settings)
            note = "against the function of the name in memory"
            found = load_file(Path(name) / "out.safetensors")
            yield Row(f"merge_files, {method}", "wamlib, in memory", "", difference(found, ours), note)


def by_ties_code(pool):
    """Compare with what the code of the TIES paper counts as the share that is kept."""
    base, members = pool.base, pool.members
    n = sum(tensor.numel() for tensor in weights(base).values())
    authors = references.ties(base, members, DENSITY, one_more=1)
    tool, by_design = "ties-merging's count, numpy float64", "differs by design: its code keeps one entry more"
    same_density = merge.ties(base, members, DENSITY)
    yield Row("ties", tool, "global", difference(same_density, authors), by_design, None)
    same_count = merge.ties(base, members, (int(DENSITY * n) + 1.5) / n)
    yield Row("ties", tool, "global", difference(same_count, authors), "density of the same count")


def running(members, decay):
    average = merge.RunningAverage(decay)
    for member in members:
        average.update(member)
    return average.state()


def fed(average, pool):
    """Feed the members to an average of torch's or timm's, the first one being what it was made of."""
    for step, member in enumerate(pool.members[1:]):
        average(pool.model(member), step)


def by_torch(pool):
    """Compare with torch.optim.swa_utils, which averages parameters and leaves the buffers of the first model."""
    tool = f"torch {version('torch')}, swa_utils.AveragedModel"
    for method, ours, how in (
        ("uniform_soup", merge.uniform_soup(pool.members), None),
        ("RunningAverage (SWA)", running(pool.members, None), None),
        ("RunningAverage (EMA)", running(pool.members, DECAY), get_ema_multi_avg_fn(DECAY)),
    ):
        averaged = AveragedModel(pool.model(pool.members[0]), multi_avg_fn=how)
        averaged.update_parameters(pool.model(pool.members[0]))
        fed(lambda model, step, averaged=averaged: averaged.update_parameters(model), pool)
        theirs = averaged.module.state_dict()
        yield Row(method, tool, "", difference(ours, weights(theirs)))
        if method == "uniform_soup":
            note = "differs by design: running statistics are those of the first model"
            yield Row("uniform_soup", tool, "", difference(ours, theirs), note, None)


def by_timm(pool):
    """Compare with timm's moving average, which with a warm-up of power 1 is the mean."""
    from timm.utils import ModelEmaV3

    tool = f"timm {version('timm')}, ModelEmaV3"
    mean = ModelEmaV3(pool.model(pool.members[0]), use_warmup=True, warmup_gamma=1, warmup_power=1)
    fed(lambda model, step: mean.update(model, step + 2), pool)
    soup = merge.uniform_soup(pool.members)
    yield Row("uniform_soup", tool, "", difference(soup, mean.module.state_dict()), "warm-up of power 1")
    ema = ModelEmaV3(pool.model(pool.members[0]), decay=DECAY)
    fed(lambda model, step: ema.update(model), pool)
    yield Row("RunningAverage (EMA)", tool, "", difference(running(pool.members, DECAY), ema.module.state_dict()))


def by_mergekit(pool):
    """Compare with mergekit, which works per tensor, running statistics included."""
    from mergekit.merge_methods.api import merge_state_dicts

    base, members, n = pool.base, pool.members, len(pool.members)
    (a, b), near = members[:2], make_pool(2, wide=0.02).members
    against_a = {key: 2 * base[key] - a[key] if merge.is_learnable(key) else a[key] for key in a}

    def row(method, ours, scope, theirs, states=(base, *members), note="", tolerance=TOLERANCE, **parameters):
        with_base = None if theirs == "linear" else 0
        result = merge_state_dicts(list(states), theirs, parameters=parameters, base=with_base)
        wanted = weights(result) if with_base == 0 else result
        return Row(
            method, f"mergekit {version('mergekit')}, {theirs}", scope, difference(ours, wanted), note, tolerance
        )

    def by_design(how):
        return {"note": f"differs by design: {how}", "tolerance": None}

    yield row("uniform_soup", merge.uniform_soup(members), "", "linear", members, weight=[1.0] * n)
    yield row("task_arithmetic", merge.task_arithmetic(base, members, SCALE), "", "task_arithmetic", weight=SCALE)
    parameters = {"weight": 1.0, "density": DENSITY, "lambda": SCALE}
    yield row("ties", merge.ties(base, members, DENSITY, SCALE, "tensor"), "tensor", "ties", **parameters)
    how = by_design("it trims each tensor on its own")
    yield row("ties", merge.ties(base, members, DENSITY, SCALE), "global", "ties", **parameters, **how)
    how = by_design("at density 0.01 it keeps at least one entry of each tensor")
    ours = merge.ties(base, members, 0.01, scope="tensor")
    yield row("ties", ours, "tensor", "ties", weight=1.0, density=0.01, **how)
    note = "density 1: the masks of two tools are never the same"
    ours = merge.dare(base, members, 1, seed=0)
    yield row("dare", ours, "tensor", "dare_linear", weight=1 / n, density=1.0, note=note)
    ours = merge.ties(base, members, 1, scope="tensor")
    yield row("ties", ours, "tensor", "dare_ties", weight=1.0, density=1.0, normalize=True, note="density 1")
    yield row("slerp", merge.slerp(a, b, ALPHA, "tensor"), "tensor", "slerp", (a, b), t=ALPHA)
    how = by_design("one angle per tensor")
    yield row("slerp", merge.slerp(a, b, ALPHA), "global", "slerp", (a, b), t=ALPHA, **how)
    how = by_design("it takes the line where the cosine is above 0.9995")
    yield row("slerp", merge.slerp(*near, ALPHA, "tensor"), "tensor", "slerp", near, t=ALPHA, **how)
    yield row("model_stock", merge.model_stock(base, members), "tensor", "model_stock")
    how = by_design("a negative cosine goes beyond the base instead of to it")
    pair = merge.model_stock(base, [against_a, b])
    yield row("model_stock", pair, "tensor", "model_stock", (base, against_a, b), **how)


def by_peft(pool):
    """Compare with peft's functions on task vectors, which know no scale and work per tensor."""
    from peft.utils import merge_utils

    base, members, n = weights(pool.base), [weights(member) for member in pool.members], len(pool.members)

    def row(method, ours, name, share, members=members, note="", **parameters):
        theirs = {}
        for key, start in base.items():
            deltas, shares = [member[key] - start for member in members], torch.full((len(members),), share)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The density .* no pruning will be performed")
                theirs[key] = start + getattr(merge_utils, name)(deltas, shares, **parameters)
        tool = f"peft {version('peft')}, merge_utils.{name}"
        return Row(method, tool, "" if name == "task_arithmetic" else "tensor", difference(ours, theirs), note)

    yield row("task_arithmetic", merge.task_arithmetic(base, members, SCALE), "task_arithmetic", SCALE)
    trimmed = merge.ties(base, members[:1], DENSITY, SCALE, "tensor")
    yield row("ties", trimmed, "magnitude_prune", SCALE, members[:1], "one member", density=DENSITY)
    yield row("ties", merge.ties(base, members, DENSITY, SCALE, "tensor"), "ties", SCALE, density=DENSITY)
    dropped = merge.dare(base, members, 1, seed=0)
    yield row("dare", dropped, "dare_linear", 1 / n, note="density 1", density=1.0)
    yield row("ties", merge.ties(base, members, 1, 1.0, "tensor"), "dare_ties", 1.0, note="density 1", density=1.0)


TOOLS = {
    "numpy": by_numpy,
    "files": by_files,
    "ties-merging": by_ties_code,
    "torch": by_torch,
    "timm": by_timm,
    "mergekit": by_mergekit,
    "peft": by_peft,
}


def compare(pool, tools=TOOLS):
    """Return the rows of all tools, by method."""
    return sorted((row for tool in tools for row in TOOLS[tool](pool)), key=lambda row: (row.method, row.scope))


def failures(rows):
    """Return the rows whose difference is not within their tolerance; NaN never is."""
    return [row for row in rows if row.tolerance is not None and not row.largest_difference <= row.tolerance]


def write(rows, path):
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([row.method, row.reference, row.scope, f"{row.largest_difference:.1e}", row.note])


def main(tools=TOOLS, path=RESULT, pool=None):
    rows = compare(pool or make_pool(), tools)
    write(rows, path)
    for row in rows:
        print(f"{row.method:18} {row.scope:6} {row.largest_difference:.1e}  {row.reference:44} {row.note}")
    wrong = failures(rows)
    for row in wrong:
        print(f"{row.method} is {row.largest_difference:.1e} from {row.reference}, more than {row.tolerance}")
    print(f"{len(rows)} comparisons, {len(wrong)} beyond their tolerance: {path}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
