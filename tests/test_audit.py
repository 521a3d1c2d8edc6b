"""The audit of the locked packages tells "none is known" from "nobody was asked"."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "book" / "tools" / "audit.py"
GOOD = {"name": "torch", "version": "2.14.1", "vulns": []}
BAD = {"name": "pillow", "version": "10.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["10.1"]}]}
HOPELESS = {"name": "numpy", "version": "1.0", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
UNKNOWN = {"name": "yaml", "skip_reason": "Dependency not found on PyPI and could not be audited: yaml (6.0)"}


def audit(folder, packages, said="", code=0):
    """Run the audit with a pip-audit that gives this answer; return exit code and both streams."""
    answer = packages if isinstance(packages, str) else json.dumps({"dependencies": packages, "fixes": []})
    fake = folder / "pip-audit"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\nprint({answer!r})\nprint({said!r}, file=sys.stderr)\nsys.exit({code})\n"
    )
    fake.chmod(0o755)
    done = subprocess.run([sys.executable, str(TOOL), str(fake), "lock.txt"], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_a_lock_without_known_vulnerabilities_passes(tmp_path):
    assert audit(tmp_path, [GOOD, GOOD]) == (0, "lock.txt: no vulnerability is known of 2 packages\n", "")


def test_each_known_vulnerability_is_a_line_in_four_parts(tmp_path):
    code, _, said = audit(tmp_path, [GOOD, BAD, HOPELESS], code=1)
    assert code == 1
    first, second = said.splitlines()
    assert "pillow 10.0: got PYSEC-1, wanted 10.1. Run `make lock`" in first
    assert "numpy 1.0: got PYSEC-2, wanted a version without it" in second


@pytest.mark.parametrize(
    ("packages", "found"),
    [
        ([UNKNOWN], "no answer for 1 of 1 packages (yaml)"),  # what pip-audit itself lets pass
        ([GOOD, *[UNKNOWN] * 5], "no answer for 5 of 6 packages (yaml, yaml, yaml, ...)"),
        ([], "no answer for 0 of 0 packages (there are none)"),
        ("", "no answer from the advisory service (requests.exceptions.ConnectionError: no such host)"),
        ("[]", "no answer from the advisory service (requests.exceptions.ConnectionError: no such host)"),
    ],
)
def test_an_audit_that_asked_nobody_is_no_success(packages, found, tmp_path):
    lines = "Traceback (most recent call last):\n  ...\nrequests.exceptions.ConnectionError: no such host"
    code, _, said = audit(tmp_path, packages, lines, code=0 if isinstance(packages, list) else 1)
    assert code == 2
    assert f"lock.txt: got {found}, wanted an answer for every package. Run `make audit`" in said
    assert len(said.splitlines()) == 1
