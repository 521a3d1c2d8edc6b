"""What a record says of the machine, the versions and the code that made it."""

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["describe_code", "describe_machine", "describe_versions"]


def describe_machine(device, threads):
    """Return what a record says of the machine: processor, cores, threads, and the flags that decide rounding."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "device": device.type,
        "gpu": gpu,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": torch.backends.mkl.is_available(),
        "mkldnn": torch.backends.mkldnn.is_available(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


@cache
def _cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


@cache
def describe_versions():
    """Return the versions of Python, of this package and of what decides its numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("wamlib", "torch", "numpy")}}


@cache
def describe_code():
    """Return the commit of the code, if it runs from a git checkout."""
    folder = Path(__file__).parent
    git = shutil.which("git")

    def ask(*words):
        return subprocess.run(
            [git, "-C", str(folder), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "--", "."))}
    except (subprocess.CalledProcessError, TypeError, OSError):
        return {"commit": None, "dirty": None}
