#!/bin/sh
# Builds the wheel, installs it in an empty environment, and uses it there as a user would.
# Usage: sh tests/wheel.sh PYTHON   (an interpreter that has hatchling)
set -eu
case ${1:?which Python?} in
  /*) python=$1 ;;
  */*) python=$(pwd)/$1 ;;  # not resolved: through its links an environment loses its packages
  *) python=$(command -v "$1") ;;
esac
tree=$(cd "$(dirname "$0")/.." && pwd)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$scratch"  # host commands run as a user of their own, who must get to the workspace
mkdir "$scratch/home" "$scratch/empty"
unset PYTHONPATH PYTHONHOME

quietly() {
  "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; echo "wheel: failed: $*" >&2; exit 1; }
}

cd "$tree"
quietly "$python" -m hatchling build -t wheel -d "$scratch/dist"
quietly "$python" -m venv "$scratch/venv"
installed="$scratch/venv/bin/python"
quietly "$installed" -m pip --disable-pip-version-check --no-input install \
  --require-hashes -r requirements/run.txt
quietly "$installed" -m pip --disable-pip-version-check --no-input install \
  --no-deps --no-index "$scratch"/dist/*.whl

cd "$scratch/empty"
env -i PATH="$PATH" LANG=C.UTF-8 HOME="$scratch/home" PACELINE_HOME="$scratch/home/state" \
  "$installed" -I -W error "$tree/tests/wheel_smoke.py" "$tree" "$scratch"/dist/*.whl
echo "wheel: ok"
