#!/usr/bin/env bash
# Set up the environment: `setup.sh venv` makes .venv, `setup.sh active PYTHON` checks the one in use.
set -uo pipefail
cd "$(dirname "$0")/../.."

fail() { # step, what was seen, what to do
  echo "cannot set up: step '$1': $2. $3" >&2
  exit 2
}

check() { # an environment is ready when all that make calls can be imported
  local problem
  problem=$("$1" - 2>&1 <<'PY'
import importlib.util as u
missing = [n for n in ("torch", "torchvision", "papermill", "jupyter_book", "jupytext", "seaborn", "pytest", "nbval", "ruff") if u.find_spec(n) is None]
if missing:
    raise SystemExit("missing " + ", ".join(missing))
try:
    import torchvision  # a CPU-only torch beside an ordinary torchvision fails here
except Exception as error:
    raise SystemExit(f"torchvision does not load ({error})")
PY
  ) || fail "check" "$problem" "$2"
}

if [ "$1" = active ]; then
  check "$2" "Run: $2 -m pip install -r requirements.lock, then $2 -m pip install -e . (or deactivate this environment, and make will use .venv)"
  exit 0
fi

for candidate in python3 python python3.14 python3.13 python3.12 python3.11; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
[ -n "${python:-}" ] || fail "find Python" "no Python of at least 3.11 on the PATH" "Install Python 3.11 or later and run the command again"

echo "Setting up .venv (about 3 minutes and 6 GB; once)"
[ -x .venv/bin/python ] || "$python" -m venv .venv || fail "make .venv" "'$python -m venv .venv' failed" "On Debian and Ubuntu install python3-venv; then delete .venv and run the command again"
echo "  installing the locked packages"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar off -r requirements.lock ||
  fail "install packages" "pip could not install requirements.lock (its message is above)" "Check the network and the free disk space, then run the command again; it continues where it stopped"
echo "  installing wamlib"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e . ||
  fail "install wamlib" "'pip install -e .' failed (its message is above)" "Run the command again; if it fails the same way, delete .venv first"
check .venv/bin/python "Delete .venv and run the command again"
