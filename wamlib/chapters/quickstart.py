"""What happens if you average two networks?"""

import torch

from .. import sweeps
from ..lines import error_along_line

NAMES = ("model", "start", "replica")
MODEL, STARTS = "mlp", ("shared start", "independent init")
ALPHAS = torch.linspace(0, 1, 11).tolist()


def runs(p):
    """Two pairs of small networks: one that parted late, and one that never met."""
    n_train, epochs, trunk_epochs = sweeps.fit_passes(p.dataset, p.n_train, p.epochs, p.trunk_epochs)
    shared = {"dataset": p.dataset, "n_train": n_train, "epochs": epochs, "trunk_epochs": trunk_epochs}
    return {(MODEL, start, 0): sweeps.pool(start, model=MODEL, n_members=2, **shared) for start in STARTS}


def tables(here):
    """The line between the two members of each pair."""
    return {"quickstart_path": here.save(here.rows(error_along_line, alphas=ALPHAS), "quickstart_path")}


def numbers(here, tables):
    """What the prose says."""
    images, path = here.images(here.p.dataset), tables["quickstart_path"]
    at = path.set_index(["start", "alpha"]).error
    ends = {f"end_{start.partition(' ')[0]}": at[start][[0.0, 1.0]].mean() for start in STARTS}
    middles = {f"mid_{start.partition(' ')[0]}": at[start][0.5] for start in STARTS}
    return {
        **ends,
        **middles,
        "chance": 100 * (1 - 1 / images.n_classes),
        "n_test": images.n_test,
        "data": images.title,
        "n_classes": images.n_classes,
        "size": f"{images.height} × {images.width}",
    }
