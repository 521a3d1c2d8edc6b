"""Should I average mine? Advice on a reader's own checkpoints, and what each option gives."""

import copy
import json
import tempfile
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file

from .. import advise, data, evaluate
from ..advise.measuring import difference
from ..ensemble import logit_ensemble
from ..merge import greedy_soup, recalibrate_batchnorm, strip_prefixes, uniform_soup
from ..sweeps import STARTS, pools_by_dataset
from ..train import pick_device
from .parameters import Parameters

AT_MOST = 3  # pairs whose line is drawn
NEAR = 6  # points; where a gain or a loss is larger, the axis is logarithmic beyond two
TABLES = ("own_members", "own_pairs", "own_lines", "own_options")


def runs(p):
    """A pool of this book, where the reader brings no members."""
    if p.members:
        return {}
    settings = {"epochs": p.epochs, "trunk_epochs": p.trunk_epochs, "n_members": p.n_pool_members}
    return pools_by_dataset(
        {p.dataset: p.n_train_pools}, [p.model], starts=[STARTS[0]], n_replicas=1, n_eval=p.n_eval_pools, **settings
    )


def files(here, folder):
    """Return the reader's files; or those of a pool of this book, each member written into a folder."""
    if here.p.members:
        return list(here.p.members)
    return written(here.pool(), folder)


def written(pool, folder):
    """Write each member of a pool into a file, as a reader would have them, and return the paths."""
    found = []
    for index, state in enumerate(pool.states):
        found.append(str(Path(folder) / f"member-{index}.safetensors"))
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, found[-1])
    return found


def opened(given, p):
    """Return what the questions are asked with: images, network, members, and training images for BatchNorm."""
    device = pick_device("auto")
    images = advise.open_selection(p.dataset, mean=p.mean, std=p.std, held_out=True).to(device)
    network = advise.build_model(p.model, images).to(device)
    states = [{key: tensor.to(device) for key, tensor in advise.read_member(file).items()} for file in given]
    batches = [batch for batch, _ in images.train.batches() if len(batch) > 1]
    return images, network, states, batches


def ask(given, p):
    """Return one row: each of `TABLES` as JSON, the recommendation, its reasons (JSON), and the images counted."""
    images, network, states, batches = opened(given, p)
    advice = advise.advise(states, network, images.selection, training_batches=batches, budget=p.budget)
    found, letters = advice.to_dict(), [chr(65 + index) for index in range(len(given))]
    members = pd.DataFrame(found["members"])
    members.insert(0, "file", [Path(file).name for file in given])
    members.insert(0, "member", letters)
    pairs = pd.DataFrame(found["pairs"])
    pairs.insert(0, "pair", [f"{letters[a]} to {letters[b]}" for a, b in zip(pairs.a, pairs.b)])
    parts = (
        members,
        pairs[["pair", "distance", "cosine", "barrier", "midpoint_gain"]],
        lines(advice.measured, letters),
        outcomes(advice, states, network, images, batches),
    )
    return pd.DataFrame(
        [
            {
                **{name: json.dumps(part.to_dict("list")) for name, part in zip(TABLES, parts, strict=True)},
                "recommendation": advice.recommendation,
                "reasons": json.dumps(list(advice.reasons)),
                "n_judging": len(images.selection),
                "n_measuring": len(images.test),
                "n_classes": len(images.classes),
            }
        ]
    )


def measure(pool, *, parameters):
    """Ask about the members of a pool of this book, written into files; see `ask`."""
    with tempfile.TemporaryDirectory() as folder:
        return ask(written(pool, folder), Parameters(**parameters))


def tables(here):
    """The members, the pairs, the lines between them, what each option gives, and the advice."""
    p = here.p
    if p.members:
        row = ask(p.members, p).iloc[0]
    else:
        asked = {"dataset": p.dataset, "model": p.model, "mean": p.mean, "std": p.std, "budget": p.budget}
        row = here.rows(measure, parameters=asked).iloc[0]
    found = {name: here.save(pd.DataFrame(json.loads(row[name])), name) for name in TABLES}
    return found | {"advice": row.drop(list(TABLES))}


def lines(measured, names, at_most=AT_MOST):
    """Return the lines between pairs of members as `wamlib.plot.error_along_path` draws them.

    Columns model (empty), start (the pair), replica, alpha, error (percent, on the selection images), recalibrated.
    """
    rows = [
        {
            "model": "",
            "start": f"{names[pair.a]} to {names[pair.b]}",
            "replica": 0,
            "alpha": alpha,
            "error": error,
            "recalibrated": measured.recalibrated,
        }
        for pair in measured.pairs[:at_most]
        for alpha, error in zip(pair.alphas, pair.errors, strict=True)
    ]
    return pd.DataFrame(rows)


def outcomes(advice, members, model, dataset, training_batches):
    """Make what the advice speaks of, and measure it on images that had no part in the advice.

    One row per option: option ("best member", "uniform soup", "greedy soup", "aligned soup" if the advice tried it,
    "logit ensemble"), passes (forward passes of a prediction), expected (gain over the mean of the members on the
    selection images, points; predicted for soups but the greedy one), accuracy (percent, test images), gain (over the
    mean of the members there, points) and noise (standard error of the gain).
    """
    measured, model, members = advice.measured, copy.deepcopy(model), [strip_prefixes(member) for member in members]

    def right(state, split, recalibrate):
        model.load_state_dict(state)
        if recalibrate:
            recalibrate_batchnorm(model, training_batches)
        return (evaluate.predict_logits(model, split).argmax(1) == split.labels).double().cpu()

    logits = []
    for state in members:
        model.load_state_dict(state)
        logits.append(evaluate.predict_logits(model, dataset.test))
    labels = dataset.test.labels
    each = torch.stack([(part.argmax(1) == labels).double().cpu() for part in logits])
    best = measured.accuracies.index(max(measured.accuracies))

    def score(state):
        return 100 * right(state, dataset.selection, True).mean().item()

    greedy = greedy_soup(members, score)
    alone = greedy.accepted[0] if len(greedy.accepted) == 1 else None  # that member, which nobody recalibrates
    chosen = {
        "best member": each[best],
        "uniform soup": right(uniform_soup(members), dataset.test, True),
        "greedy soup": right(greedy.state, dataset.test, True) if alone is None else each[alone],
    }
    if "aligned soup" in measured.options:
        chosen["aligned soup"] = right(uniform_soup(advise.aligned(members, model)), dataset.test, True)
    chosen["logit ensemble"] = (logit_ensemble(logits).argmax(1) == labels).double().cpu()
    mean = sum(measured.accuracies) / len(members)
    expected = {name: measured.gain(name)[0] for name in measured.options}
    expected["best member"] = measured.accuracies[best] - mean
    expected["greedy soup"] = (score(greedy.state) if alone is None else measured.accuracies[alone]) - mean
    rows = []
    for option, found in chosen.items():
        gain, noise = difference(found, each.mean(0))
        rows.append(
            {
                "option": option,
                "passes": len(members) if option == "logit ensemble" else 1,
                "expected": expected[option],
                "accuracy": 100 * found.mean().item(),
                "gain": gain,
                "noise": noise,
            }
        )
    return pd.DataFrame(rows)


def write_soup(here):
    """Write the soup of all members where the parameters ask for it, and return a line about it."""
    if not here.p.output:
        return "no output was asked for"
    with tempfile.TemporaryDirectory() as folder:
        given = files(here, folder)
        _, network, _, batches = opened(given, here.p)
        soup = advise.write_soup(given, here.p.output, network, batches)
    return f"{soup.name}: {soup.stat().st_size:,} bytes"


def numbers(here, tables):
    """What the prose says."""
    p, advice, at = here.p, tables["advice"], tables["own_options"].set_index("option")
    n = len(tables["own_members"])
    soup, ensemble = at.loc["uniform soup"], at.loc["logit ensemble"]
    return {
        "whose": f"{n} networks of {'yours' if p.members else 'this book'}",
        "data": data.title(p.dataset),
        "advice": advice.recommendation,
        "n_members": n,
        "n_judging": advice.n_judging,
        "n_measuring": advice.n_measuring,
        "soup": soup.gain,
        "soup_noise": soup.noise,
        "soup_expected": soup.expected,
        "ensemble": ensemble.gain,
        "barrier": tables["own_pairs"].barrier.max(),
        "chance": 100 / advice.n_classes,
        "passes": passes(p.budget),
    }


def passes(budget):
    """Return a budget in words."""
    return "1 forward pass" if budget == 1 else f"{budget} forward passes"


def option_gains(table):
    """Draw what each option was expected to gain over a member (hollow), and what it gained on other images.

    Columns as `outcomes` returns them. An option of which nothing was expected has NaN there.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    from ..plot.style import LOOKS

    options = {name: LOOKS[name] for name in ("member", "uniform soup", "greedy soup", "logit ensemble")}
    options["aligned soup"] = ("#CC78BC", "X", "-")  # which has no line in other figures
    fig, ax = plt.subplots(figsize=(6.4, 0.5 * len(table) + 1.3), layout="constrained")
    places = np.arange(len(table))[::-1]
    for place, row in zip(places, table.itertuples(), strict=True):
        color, marker, _ = options.get(row.option, LOOKS["member"])
        ax.errorbar(row.gain, place, xerr=row.noise, color=color, marker=marker, markersize=7, linestyle="")
        ax.plot(row.expected, place + 0.22, color=color, marker=marker, markersize=7, markerfacecolor="none")
    ax.axvline(0, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
    ax.set_yticks(places, table.option)
    ax.set(xlabel="Gain over a member (points)", ylim=(-0.6, len(table) - 0.4))
    if np.nanmax(table[["gain", "expected"]].abs().to_numpy()) > NEAR:  # a collapse beside tenths of a point
        ax.set_xscale("symlog", linthresh=2)
        ticks = [-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50]
        low, high = ax.get_xlim()
        ax.set_xticks([tick for tick in ticks if low <= tick <= high], [f"{t:g}" for t in ticks if low <= t <= high])
        ax.xaxis.set_minor_locator(plt.NullLocator())
    plt.close(fig)
    return fig


def advice_in_words(here, tables):
    """Return the lines of the advice: what to do at the budget, then why."""
    advice = tables["advice"]
    reasons = [f"- {reason}" for reason in json.loads(advice.reasons)]
    return [f"At {passes(here.p.budget)}: {advice.recommendation}", *reasons]
