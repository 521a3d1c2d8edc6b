"""A set-up that fails says which step failed and what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_setup(root, *words, path=None):
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    script = root / "book" / "tools" / "setup.sh"
    command = [shutil.which("bash"), str(script), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "book" / "tools").mkdir(parents=True)
    shutil.copy2(ROOT / "book" / "tools" / "setup.sh", tmp_path / "book" / "tools")
    return tmp_path


def assert_says(done, *words):
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr


def test_without_python(copy, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dirname").symlink_to(shutil.which("dirname"))
    assert_says(run_setup(copy, "venv", path=str(tmp_path / "bin")), "'find Python'", "3.11", "Install Python")


@pytest.mark.slow
def test_without_a_package_in_the_registry(copy):
    (copy / "requirements.lock").write_text("this-package-does-not-exist-anywhere==1.0\n")
    assert_says(run_setup(copy, "venv"), "'install packages'", "requirements.lock", "run the command again")


def test_an_active_environment_without_the_packages(copy, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')  # without site-packages
    python.chmod(0o755)
    assert_says(run_setup(copy, "active", python), "'check'", "missing torch", "pip install")


def test_this_environment_passes_the_check(copy):
    assert run_setup(copy, "active", sys.executable).returncode == 0
