#!/usr/bin/env bash
# Makes the virtual environment $1 with a Python >= 3.11 and installs cifarray, editable, with its tests' tools.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

runs_311() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if runs_311 "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  local named=${PYTHON:-python3} version
  version=$("$named" -c 'import platform; print(platform.python_version())' 2>/dev/null) || version="none that runs"
  echo "error: cifarray needs Python >= 3.11, and $named is $version;" \
    "install one, or name one: make install PYTHON=/path/to/python3.12" >&2
  return 1
}

if ! runs_311 "$venv/bin/python"; then
  python=$(find_python)
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "error: $python cannot make virtual environments; on Debian or Ubuntu: apt-get install python3-venv" >&2
    exit 1
  fi
  echo "making $venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
fi

echo "installing cifarray and what it needs into $venv (PyTorch with its CUDA libraries: several GB, some minutes)"
"$venv/bin/python" -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
