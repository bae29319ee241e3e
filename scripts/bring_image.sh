#!/usr/bin/env bash
# Builds the image and brings it into a cluster: "$@" is a command that takes the archive, as in `kind load image-archive`.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ARCHIVE=$folder/cifarray.tar scripts/image.sh
"$@" "$folder/cifarray.tar"
