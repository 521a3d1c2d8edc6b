"""The command line: the only file that reads its arguments."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .errors import ConfigError, WamlibError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Train members, merge them, and probe the results.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")]


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
):
    """Train the runs of the book that are missing, on all cores or on the accelerator."""
    from . import sweeps

    settings = _read_params(params)
    try:
        runs = sweeps.run(sweeps.book(**settings), device=device)
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. Finished runs are kept; the same command continues.", err=True)
        raise typer.Exit(130) from None
    typer.echo(f"{len(runs)} runs are in the store.")


@app.command()
def runs():
    """List the finished runs."""
    from rich.console import Console
    from rich.table import Table

    from .runs import RunStore

    store = RunStore()
    rows = store.table()
    shown = ["run_id", "epochs", "test_accuracy", "seconds", "device"]
    table = Table(*shown, title=f"{len(rows)} finished runs in {store.root}")
    for row in rows.to_dict("records"):
        table.add_row(*(f"{row[name]:.1f}" if isinstance(row[name], float) else str(row[name]) for name in shown))
    Console().print(table)


def _read_params(path):
    import yaml

    if path is None:
        return {}
    try:
        settings = yaml.safe_load(path.read_text()) or {}
        if not isinstance(settings, dict):
            raise ValueError("not a mapping of names to values")
        return settings
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            "cannot read parameters",
            item=str(path),
            got=str(error),
            wanted="a YAML file of parameter names and values",
            fix="Correct the path or the file; params/smoke.yml is an example.",
        ) from error


def main():
    """Run the command line; a user's mistake ends with one message and exit code 2."""
    try:
        app()
    except WamlibError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
