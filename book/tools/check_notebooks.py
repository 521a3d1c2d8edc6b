"""Execute every chapter at the smoke profile with papermill, then run each again with nbval.

The second run must print the tables that the first one printed (cells tagged
``nbval-check-output``): the chapters are deterministic, and a fresh kernel can run them.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXECUTED = ROOT / ".smoke"
JOBS = int(os.environ.get("JOBS", "2"))


def main():
    chapters = sorted((ROOT / "notebooks").glob("*.ipynb"))
    os.environ["OMP_NUM_THREADS"] = "1"
    params = ROOT / "params" / "smoke.yml"
    # Train first: chapters that run side by side would wait for each other's members.
    if code := subprocess.run([sys.executable, "-m", "wamlib.cli", "sweep", "--params", str(params)]).returncode:
        return code

    def execute(path):
        command = [sys.executable, ROOT / "book" / "tools" / "execute.py", path, EXECUTED / path.name, params]
        return subprocess.run(list(map(str, command))).returncode

    with ThreadPoolExecutor(JOBS) as pool:
        failed = [path.name for path, code in zip(chapters, pool.map(execute, chapters), strict=True) if code]
    if failed:
        print(f"cannot execute chapters: {', '.join(failed)}", file=sys.stderr)
        return 1
    command = [
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "-n",
        str(JOBS),
        "--dist",
        "loadfile",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(
        [sys.executable, *command, *(str(EXECUTED / path.name) for path in chapters)], cwd=ROOT
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
