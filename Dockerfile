# The image of Ray's head and workers, of the bootstrap jobs and of the exporter: make image
#
# Runs as uid 1000 with a read-only root file system; writable are /tmp and $HOME, which a volume at /data gives.
#
# The tag moves; a digest does not: make image BASE_IMAGE=docker.io/library/python@sha256:DIGEST, where the registry or
# `docker buildx imagetools inspect docker.io/library/python:3.11-slim-bookworm` says the digest. The image's label
# org.opencontainers.image.base.digest says what it was built on.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

# Nothing is installed whose sha256 is not in requirements/, and nothing is built on the way but cifarray itself.
FROM ${BASE_IMAGE} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements ./requirements
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /tools \
 && /tools/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt \
 && python3 -m venv --without-pip /opt/cifarray \
 && /tools/bin/pip --python /opt/cifarray/bin/python install --require-hashes --only-binary :all: \
    -r requirements/image.txt

FROM packages AS project
COPY . .
RUN /tools/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheels . \
 && /tools/bin/pip --python /opt/cifarray/bin/python install --no-deps --no-index \
    --root /project --prefix /opt/cifarray /wheels/*.whl

FROM ${BASE_IMAGE}
# The standard library's bytecode, which not every base has: nothing can write it later.
RUN groupadd --gid 1000 cifarray \
 && useradd --uid 1000 --gid 1000 --home-dir /data --no-create-home --shell /bin/bash cifarray \
 && mkdir /data && chown 1000:1000 /data \
 && echo 'PATH=/opt/cifarray/bin:$PATH' > /etc/profile.d/cifarray.sh \
 && python3 -m compileall -q -x '/(test|tests|lib2to3|[a-z]+-packages)/' "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
# pip has compiled what it installed. Several GB that seldom change, and over them a layer of a few MB that does.
COPY --from=packages /opt/cifarray /opt/cifarray
COPY --from=project /project/opt/cifarray /opt/cifarray
ENV PATH=/opt/cifarray/bin:$PATH \
    HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
WORKDIR /data
USER 1000:1000
CMD ["cifarray", "--help"]
ARG VERSION=unknown
ARG REVISION=unknown
ARG BASE_IMAGE
ARG BASE_DIGEST=unknown
LABEL org.opencontainers.image.title="cifarray" \
      org.opencontainers.image.description="Train and tune image classifiers with Ray on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}"
