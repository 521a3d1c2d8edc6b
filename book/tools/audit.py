"""Audit the locked packages for known vulnerabilities: PIP_AUDIT LOCK.

Exit code 0: none is known. 1: some are, one line each. 2: the advisories could not be asked.
"""

import json
import subprocess
import sys

__all__ = ["main"]

WANTED = "an answer for every package"
FIX = "Run `make audit` where the network reaches pypi.org; nothing is known about these packages until then."


def main(pip_audit, lock):
    # --no-deps and --disable-pip: the lock is whole and pinned, so nothing needs to be resolved or installed.
    command = [
        pip_audit,
        "--requirement",
        lock,
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "--progress-spinner",
        "off",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):  # a traceback in place of an answer
        said = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()[-1]
        return _fail(lock, f"no answer from the advisory service ({said[:200]})", WANTED, FIX, 2)
    # pip-audit takes a package that the service does not know for a harmless one, and ends with 0.
    silent = [package["name"] for package in packages if "skip_reason" in package]
    if silent or not packages:
        names = ", ".join(silent[:3]) + ", ..." * (len(silent) > 3) or "there are none"
        return _fail(lock, f"no answer for {len(silent)} of {len(packages)} packages ({names})", WANTED, FIX, 2)
    known = [(package, flaw) for package in packages for flaw in package["vulns"]]
    for package, flaw in known:
        fixed = " or ".join(flaw["fix_versions"]) or "a version without it, of which none is known"
        _fail(f"{package['name']} {package['version']}", flaw["id"], fixed, "Run `make lock`, then `make test`.", 1)
    if not known:
        print(f"{lock}: no vulnerability is known of {len(packages)} packages")
    return 1 if known else 0


def _fail(item, got, wanted, fix, code):
    print(f"cannot pass the audit of the locked packages: {item}: got {got}, wanted {wanted}. {fix}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
