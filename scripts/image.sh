#!/usr/bin/env bash
# Builds the image $1 (default cifarray:VERSION) with docker, podman or buildah, whichever is there first.
# BUILDER names one of them, BASE_IMAGE another base (NAME@sha256:DIGEST pins it), BUILD_ARGS passes further options to the builder, ARCHIVE names a
# file for the image, as a cluster without a registry takes it.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' cifarray/__init__.py)
image=${1:-cifarray:$version}

find_builder() {
  local candidate
  for candidate in ${BUILDER:-docker podman buildah}; do
    # A docker client without its daemon builds nothing.
    if command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  echo "error: none of ${BUILDER:-docker, podman and buildah} works here; install one, as in: apt-get install buildah" >&2
  return 1
}

# The digest that pins the base, or that the builder has for its tag; nothing where the builder cannot tell.
base_digest() {
  case $base in
  *@sha256:*) echo "${base##*@}" ;;
  *) "$builder" pull --quiet "$base" >/dev/null 2>&1
    case $builder in
    buildah) buildah inspect --type image --format '{{.FromImageDigest}}' "$base" 2>/dev/null ;;
    *) "$builder" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$base" 2>/dev/null ;;
    esac | grep -oE 'sha256:[0-9a-f]{64}' | head -n 1 ;;
  esac
}

builder=$(find_builder)
base=${BASE_IMAGE:-$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)}
digest=$(base_digest) || digest=
case $base in
*@sha256:*) ;;
*) echo "the base $base is not pinned; to pin it: make image BASE_IMAGE=$(sed -E 's#:[^/:]+$##' <<<"$base")@${digest:-sha256:DIGEST}" >&2 ;;
esac
command=("$builder" build)
# buildah keeps no layers unless told to, and inside a container it has to do without namespaces of its own.
[ "$builder" != buildah ] || command=(buildah build --isolation chroot --layers --format docker)
read -ra more <<<"${BUILD_ARGS:-}"
[ -z "${BASE_IMAGE:-}" ] || more+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
"${command[@]}" "${more[@]}" \
  --build-arg "VERSION=$version" \
  --build-arg "BASE_DIGEST=${digest:-unknown}" \
  --build-arg "REVISION=$(git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)" \
  --tag "$image" .
echo "built $image with $builder"

if [ -n "${ARCHIVE:-}" ]; then
  rm -f "$ARCHIVE"
  case $builder in
  docker) docker save --output "$ARCHIVE" "$image" ;;
  podman) podman save --format docker-archive --output "$ARCHIVE" "$image" ;;
  buildah) buildah push "$image" "docker-archive:$ARCHIVE:$image" ;;
  esac
  echo "wrote $ARCHIVE"
fi
