"""The command line: the only file that reads its arguments."""

import sys
import textwrap
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .errors import ConfigError, WamlibError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Train members, merge them, and probe the results.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")]
Store = Annotated[str | None, typer.Option(help="Folder or URL (s3://...) of the runs; by default $WAMLIB_RUNS.")]


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Data sets: fashion-mnist, mnist, cifar10, ...")],
    root: Annotated[
        Path | None, typer.Option(help="Folder for data sets; by default data/raw of the checkout.")
    ] = None,
):
    """Bring data sets to this machine and check their bytes."""
    from . import data

    for name in names:
        typer.echo(f"{name}: verified in {data.fetch(name, root)}")


@app.command()
def sweep(
    params: Annotated[Path | None, typer.Option(help="YAML of papermill overrides, such as params/smoke.yml.")] = None,
    device: Device = "auto",
    together: Annotated[int, typer.Option(min=1, help="Members of one architecture to train as one program.")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core, or one GPU.")] = None,
    shard: Annotated[
        str | None, typer.Option(help="i/n: only the i-th of n shares, for machines side by side.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, tcp://host:8786; its workers train.")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="With --dask: least GPU=... that a worker declares.")
    ] = None,
    store: Store = None,
):
    """Train the runs of the book that are missing, on all cores or accelerators, or on a cluster.

    Exit code 1: some runs failed, the others are finished and kept. 2: nothing could be begun.
    """
    from . import chapters, data, sweeps
    from .runs import RunStore

    _check_device(device, here=dask is None)
    there = RunStore(store)
    if gpus is not None and dask is None:
        fix = "Name its scheduler with --dask, or leave --gpus out."
        raise ConfigError("cannot choose workers", "--gpus", "no --dask beside it", "a cluster", fix)
    settings = {} if params is None else chapters.read_parameters(params)
    configs = chapters.all_runs(settings)
    if shard is not None:
        configs = sweeps.shard(configs, *sweeps.read_shard(shard))
    for name in chapters.datasets(settings):
        if not data.is_present(name):
            how = "data/README.md says how to bring it" if name.startswith("folder:") else f"wamlib fetch {name}"
            typer.echo(f"left out: {data.title(name)}, which is not on this machine ({how})", err=True)
    try:
        with sweeps.cluster(dask, gpus=gpus) if dask is not None else nullcontext() as executor:
            runs = sweeps.run(configs, there, executor, device=device, together=together, workers=workers)
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. Finished runs are kept; the same command continues.", err=True)
        raise typer.Exit(130) from None
    except sweeps.SweepError as error:
        _print_failures(error.failures)
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{len(runs)} runs are in the store.")


def _print_failures(failures, at_most=5):
    """Print the first failures with config and traceback; a failure that its four parts explain needs no traceback."""
    import json

    for failure in failures[:at_most]:
        typer.echo(f"{failure.config.run_id} failed: {failure.error}", err=True)
        typer.echo(f"  config: {json.dumps(failure.config.to_dict())}", err=True)
        if not failure.explained:
            typer.echo(textwrap.indent(failure.traceback.rstrip(), "  "), err=True)
    if len(failures) > at_most:
        typer.echo(f"... and {len(failures) - at_most} more.", err=True)


@app.command()
def merge(
    members: Annotated[
        list[Path], typer.Argument(help="Checkpoints: safetensors files, or state dicts named .pt or .pth.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The merged file; its name ends in .safetensors.")],
    method: Annotated[
        str, typer.Option(help="uniform, interpolate, slerp, task_arithmetic, ties, dare or model_stock.")
    ] = "uniform",
    base: Annotated[
        Path | None, typer.Option(help="Checkpoint that the members started from, for the last four.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="One number per member, as 0.5,0.3,0.2 (uniform).")] = None,
    alpha: Annotated[float | None, typer.Option(help="0 is the first file, 1 the second (interpolate, slerp).")] = None,
    density: Annotated[float | None, typer.Option(help="Share of the entries that are kept (ties, dare).")] = None,
    scale: Annotated[
        float | None, typer.Option(help="Factor on the task vectors (task_arithmetic, ties, dare).")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="global or tensor (ties, slerp).")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes the masks (dare).")] = None,
    checksums: Annotated[bool, typer.Option(help="Record the SHA-256 of each input.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the files, print the plan, write nothing.")] = False,
):
    """Merge checkpoint files into one, whatever their size.

    The output appears in one step when it is whole; its metadata says what it was made of.
    """
    from .merge import merge_files

    settings = {"weights": _read_weights(weights), "alpha": alpha, "density": density, "scale": scale}
    settings |= {"scope": scope, "seed": seed}
    settings = {name: value for name, value in settings.items() if value is not None}
    try:
        with _notices(), _Bars() as bars:
            done = merge_files(
                members, out, method, base=base, dry_run=dry_run, checksums=checksums, progress=bars, **settings
            )
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. Nothing was written.", err=True)
        raise typer.Exit(130) from None
    if dry_run:
        _print_plan(done)
    else:
        size = done.path.stat().st_size / 1e6
        files = "file" if len(done.inputs) == 1 else "files"
        typer.echo(f"{done.path}: {method} of {len(done.inputs)} {files}, {len(done.tensors)} tensors, {size:.1f} MB")


@app.command()
def advise(
    members: Annotated[
        list[str], typer.Argument(help="Checkpoints: safetensors, .pt or .pth files, or ids of finished runs.")
    ],
    model: Annotated[str, typer.Option(help="A name of wamlib.models, or package.module:function that returns it.")],
    data: Annotated[str, typer.Option(help="Data set whose selection images judge: digits, folder:PATH, ...")],
    budget: Annotated[int, typer.Option(help="Forward passes that one prediction may cost.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    n_images: Annotated[int | None, typer.Option(help="Selection images; by default up to 3,000.")] = None,
    mean: Annotated[str | None, typer.Option(help="Of pixels in [0, 1], a number per channel: 0.49,0.48,0.45.")] = None,
    std: Annotated[str | None, typer.Option(help="The same for the standard deviation.")] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Judge on half of the test images: for members trained elsewhere.")
    ] = False,
    device: Device = "auto",
):
    """Say whether to merge members, how, and why, from a labelled selection set."""
    import json

    from . import advise as advising
    from .train import pick_device

    _check_device(device)
    with _notices():
        dataset = advising.open_selection(data, n_images, mean, std, held_out=held_out)
        network = advising.build_model(model, dataset)
        states = [advising.read_member(name) for name in members]
        where = pick_device(device)
        dataset = dataset.to(where)
        batches = [images for images, _ in dataset.train.batches() if len(images) > 1]
        states = [{key: tensor.to(where) for key, tensor in state.items()} for state in states]
        advice = advising.advise(states, network.to(where), dataset.selection, training_batches=batches, budget=budget)
    if as_json:
        typer.echo(json.dumps({"files": members, **advice.to_dict()}, indent=1))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for part in advising.report(advice, members):
        console.print(part)


def _check_device(name, here=True):
    """Refuse a device that no machine has, or that this one has not."""
    import torch

    try:
        device = torch.device("cpu" if name == "auto" else name)
        there = {"cpu": True, "mps": torch.backends.mps.is_available()}
        there["cuda"] = (device.index or 0) < torch.cuda.device_count()
        if there[device.type] or not here:
            return
    except (KeyError, RuntimeError):
        pass
    fix = "Correct the option, or leave it out."
    raise ConfigError("cannot compute", "--device", repr(name), "cpu, or cuda or mps where there is one, or auto", fix)


class _Bars:
    """A progress bar per step of the work, on standard error; none where nobody looks."""

    def __init__(self):
        self.bars = {}

    def __call__(self, what, done, total):
        from tqdm import tqdm

        if what not in self.bars:
            self.bars[what] = tqdm(total=total, desc=what, unit="", unit_scale=True, disable=None, leave=False)
        bar = self.bars[what]
        if done == 0 and bar.n:  # the same step once more
            bar.reset(total)
        bar.update(done - bar.n)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for bar in self.bars.values():
            bar.close()


@contextmanager
def _notices():
    """Show warnings as one line each, without the place in the source."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: typer.echo(f"Notice: {message}.", err=True)
        yield


def _read_weights(text):
    if text is None:
        return None
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        wanted, fix = "numbers with commas between them", "Write --weights 0.5,0.3,0.2, one number per member."
        raise ConfigError("cannot read the weights", "--weights", repr(text), wanted, fix) from None


def _print_plan(plan):
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("key", overflow="fold"), "dtype", "shape", "plan", title=f"{len(plan.tensors)} tensors")
    for row in plan.tensors:
        table.add_row(row["key"], row["dtype"], "×".join(map(str, row["shape"])) or "scalar", row["plan"])
    console = Console()
    console.print(table)
    settings = ", ".join(f"{name} {value}" for name, value in plan.settings.items())
    lines = [f"method  {plan.method}" + (f" ({settings})" if settings else "")]
    lines += [f"member  {entry['file']}, {entry['bytes'] / 1e6:.1f} MB" for entry in plan.inputs]
    lines += [f"base    {plan.base['file']}, {plan.base['bytes'] / 1e6:.1f} MB"] if plan.base else []
    lines += [f"output  {plan.path}; nothing was written"]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


@app.command()
def runs(
    store: Store = None,
    failed: Annotated[bool, typer.Option("--failed", help="Those that failed, with config and traceback.")] = False,
):
    """List the finished runs."""
    import json

    from rich.console import Console
    from rich.table import Table

    from .runs import RunStore

    store = RunStore(store)
    if failed:
        notes = store.failures()
        for note in notes:
            typer.echo(f"{note['run_id']} failed {note['failed']} on {note['where']}: {note['error']}")
            typer.echo(f"  config: {json.dumps(note['config'])}")
            typer.echo(textwrap.indent(note["traceback"].rstrip(), "  "))
        typer.echo(f"{len(notes)} failed runs in {store.root}")
        return
    rows = store.table()
    shown = ["run_id", "epochs", "test_accuracy", "seconds", "device"]
    table = Table(*shown, title=f"{len(rows)} finished runs in {store.root}")
    for row in rows.to_dict("records"):
        table.add_row(*(f"{row[name]:.1f}" if isinstance(row[name], float) else str(row[name]) for name in shown))
    Console().print(table)


def main():
    """Run the command line; a user's mistake ends with one message and exit code 2."""
    try:
        app()
    except WamlibError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
