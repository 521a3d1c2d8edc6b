"""What lies between two members? The line between two, and the plane through three."""

import functools
import math

import pandas as pd

from ... import models, probe
from ...lines import error_along_line
from ...pools import N_RECALIBRATION
from ...stats import mean_interval
from ...sweeps import pools

NAMES = ("model", "start", "replica")
KINDS = ["model", "start", "recalibrated"]


def runs(p):
    """Pools of all three kinds, those of the chapter on members."""
    shared = {"dataset": p.dataset, "n_train": p.n_train, "epochs": p.epochs, "trunk_epochs": p.trunk_epochs}
    return pools(p.models, n_replicas=p.n_replicas, n_members=p.n_members, **shared)


def path(pool, *, alphas, n_images):
    """Measure the test error along the line between the first two members, on the first test images."""
    return error_along_line(pool.first(2, n_test=n_images), alphas=alphas)


def over_plane(pool, *, n_points, n_images):
    """Measure the test error over the plane through the first three members, on the first test images.

    Columns place ("grid"; "A", "B", "C": the members; "soup": the mean of the three), u, v (coordinates, see
    `wamlib.probe.Plane`) and error (percent; with BatchNorm recalibrated at every point, the members included).
    """
    pool = pool.first(3, n_test=n_images)
    error = functools.partial(pool.error, recalibrate=pool.has_batchnorm)
    found = probe.plane(*pool.states, error, n_points)
    rows = [
        {"place": "grid", "u": u, "v": v, "error": value}
        for v, line in zip(found.vs, found.errors)
        for u, value in zip(found.us, line)
    ]
    for letter, (u, v), state in zip("ABC", found.members, pool.states):
        rows.append({"place": letter, "u": u, "v": v, "error": error(state)})
    middle = [sum(axis) / 3 for axis in zip(*found.members)]
    rows.append({"place": "soup", "u": middle[0], "v": middle[1], "error": error(pool.soup())})
    return pd.DataFrame(rows)


def tables(here):
    """The lines of all pools, the planes of the first pool of each kind, and the barriers."""
    p = here.p
    lines = here.rows(path, alphas=p.alphas, n_images=p.n_path_images)
    planes = here.groups_where(model=p.plane_model, replica=0)
    plane = here.rows(over_plane, planes, n_points=p.n_plane, n_images=p.n_plane_images)
    return {
        "path": here.save(lines, "path"),
        "plane": here.save(plane, "plane"),
        "barriers": here.save(barriers(lines), "barriers"),
    }


def barriers(path):
    """Return the barrier of each line, one row per pool, without and with recalibration."""
    return path.groupby([*KINDS, "replica"], sort=False).barrier.first().reset_index()


def with_interval(barriers):
    """Return the mean barrier of each kind with its 95 % interval, which cannot reach below 0, as words."""
    rows = []
    for kind, group in barriers.groupby(KINDS, sort=False):
        mean, low, high, _ = mean_interval(group.barrier)
        rows.append(dict(zip(KINDS, kind)) | {"barrier": f"{mean:.1f} [{max(0, low):.1f}, {high:.1f}]"})
    return pd.DataFrame(rows).set_index(KINDS)


def numbers(here, tables):
    """What the prose says; "the ResNet" is the first architecture with BatchNorm."""
    p, table, images = here.p, tables["barriers"], here.images(here.p.dataset)
    fresh = table.groupby(["model", "start", "replica"], sort=False).barrier.last().groupby("start").mean()
    normed = next((model for model in p.models if models.facts(model).batchnorm), None)
    found = table[table.model == normed].groupby(["start", "recalibrated"]).barrier.mean().to_dict()
    kinds = {"init": "shared init", "independent": "independent init"}
    ages = {"stale": False, "fresh": True}
    return {
        **{short: fresh[start] for short, start in {"shared": "shared start", **kinds}.items()},
        **{
            f"{age}_{short}": found.get((start, recalibrated), math.nan)
            for short, start in kinds.items()
            for age, recalibrated in ages.items()
        },
        "n_replicas": p.n_replicas,
        "n_recalibration": min(N_RECALIBRATION, p.n_train),
        "n_plane_images": min(p.n_plane_images, images.n_test),
        "n_points": p.n_plane**2,
        "plane_model": p.plane_model,
    }
