"""What a benchmark was run on, and where its result is written."""

import json
import os
import re
from importlib.metadata import version
from pathlib import Path

from wamlib.provenance import describe_machine
from wamlib.train import pick_device

RESULTS = Path(__file__).parent / "results"


def write(name, numbers):
    """Write a benchmark's numbers beside the machine and the versions; return the path.

    The file's name holds the processor and the version of torch, so that results of
    different machines stand side by side.
    """
    machine = describe_machine(pick_device(), os.cpu_count())
    where = re.sub(r"\W+", "-", machine["gpu"] or machine["cpu"]).strip("-").lower()
    path = RESULTS / f"{name}-{where}-{machine['cores']}cores-torch{version('torch')}.json"
    content = {"numbers": numbers, "machine": machine, "versions": {n: version(n) for n in ("torch", "torchvision")}}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
