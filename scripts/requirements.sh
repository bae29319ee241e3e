#!/usr/bin/env bash
# Writes requirements/: what the image installs, each file of it by its sha256, in the versions of constraints.txt.
# Uses uv from the virtual environment $1, and fails where the two platforms of the image would get other versions.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$1/bin/uv
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

hashed() { # hashed PLATFORM SOURCE
  "$uv" pip compile --quiet --no-config --no-header --no-annotate --generate-hashes --python-version 3.11 \
    --python-platform "$1-manylinux_2_28" --constraints constraints.txt --output-file "$scratch/$1" "$2" >/dev/null
}

write() { # write SOURCE TARGET TITLE
  hashed x86_64 "$1"
  hashed aarch64 "$1"
  cmp "$scratch/x86_64" "$scratch/aarch64" ||
    { echo "error: x86_64 and aarch64 get other packages from $1; pin what differs in constraints.txt" >&2; exit 1; }
  { echo "# $3, with the sha256 of every file; written by \`make requirements\` from constraints.txt."; cat "$scratch/x86_64"; } > "$2"
}

grep -x 'hatchling==.*' constraints.txt > "$scratch/build.in"
write pyproject.toml requirements/image.txt "What cifarray needs when it runs (Python 3.11, Linux)"
write "$scratch/build.in" requirements/build.txt "What its wheel is built with"
