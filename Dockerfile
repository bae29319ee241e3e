# The image of Ray's head and workers, of the bootstrap jobs and of the exporter: make image
#
# Runs as uid 1000 with a read-only root file system; writable are /tmp and $HOME, which a volume at /data gives.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The dependencies alone: these layers stay as long as neither file changes.
COPY pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /tools \
 && /tools/bin/pip install -c constraints.txt build hatchling \
 && python3 -m venv --without-pip /opt/cifarray \
 && /tools/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > wanted.txt \
 && /tools/bin/pip --python /opt/cifarray/bin/python install -c constraints.txt -r wanted.txt
COPY . .
RUN /tools/bin/python -m build --wheel --no-isolation --outdir /wheels . \
 && /tools/bin/pip --python /opt/cifarray/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${BASE_IMAGE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cifarray" \
      org.opencontainers.image.description="Train and tune image classifiers with Ray on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The standard library's bytecode, which not every base has: starting finds no place to write it to.
RUN groupadd --gid 1000 cifarray \
 && useradd --uid 1000 --gid 1000 --home-dir /data --no-create-home --shell /bin/bash cifarray \
 && mkdir /data && chown 1000:1000 /data \
 && echo 'PATH=/opt/cifarray/bin:$PATH' > /etc/profile.d/cifarray.sh \
 && python3 -m compileall -q -x '/(test|tests|lib2to3|[a-z]+-packages)/' "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# pip has compiled every module of these.
COPY --from=build /opt/cifarray /opt/cifarray
ENV PATH=/opt/cifarray/bin:$PATH \
    HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
WORKDIR /data
USER 1000:1000
CMD ["cifarray", "--help"]
