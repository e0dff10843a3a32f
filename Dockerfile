# The image of every part of batchord: `docker run IMAGE worker`, `docker run IMAGE api`, `docker run IMAGE submit ...`.
ARG PYTHON_IMAGE=python:3.13.14-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/batchord
COPY requirements.lock ./
RUN pip --python /opt/batchord/bin/python install --require-hashes -r requirements.lock
COPY . .
RUN pip --python /opt/batchord/bin/python wheel --no-deps --no-build-isolation --no-index --wheel-dir /dist . \
    && pip --python /opt/batchord/bin/python install --no-deps --no-index /dist/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="batchord" \
      org.opencontainers.image.description="OpenAI's Batch API for any LLM endpoint, on Celery and Redis" \
      org.opencontainers.image.licenses="Apache-2.0"
# A volume mounted there starts as a copy of the folder, and so belongs to this user.
RUN groupadd --gid 10001 batchord \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/batchord --shell /usr/sbin/nologin batchord \
    && install --directory --owner=batchord --group=batchord /var/lib/batchord
COPY --from=build /opt/batchord /opt/batchord
ENV PATH=/opt/batchord/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BATCHORD_DATA_DIR=/var/lib/batchord
USER 10001:10001
WORKDIR /var/lib/batchord
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=15s --start-period=20s --retries=3 CMD ["batchord", "health", "--worker"]
ENTRYPOINT ["batchord"]
CMD ["worker"]
