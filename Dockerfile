# Three images from one file: --target web, worker or inference. docs/deploy.md tells how to run them.
# CPU by default; for NVIDIA: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
# torch first and alone: the largest layer, which changes least, and the only one that knows of CUDA
ARG TORCH=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/venv/bin/pip install --index-url "${TORCH_INDEX}" "torch==${TORCH}"
WORKDIR /build
COPY requirements.txt requirements-samples.txt ./
RUN /opt/venv/bin/pip install -r requirements.txt \
 && /opt/venv/bin/pip install --no-deps -r requirements-samples.txt

FROM python:${PYTHON}-slim-bookworm AS base
# a volume takes over the owner of the folder that it is mounted on
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lorasite \
 && install -d -o lorasite -g lorasite /data /results
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY . .
# The static files are collected once, here. Settings need a folder and a key, of which the image must keep nothing.
RUN /opt/venv/bin/python -m compileall -q . \
 && DATA_DIR=/tmp/build RESULTS_DIR=/tmp/build SECRET_KEY=unused STATIC_ROOT=/opt/static \
    /opt/venv/bin/python manage.py collect_static_files \
 && rm -r /tmp/build
# all that is written lies under /data, /results and /tmp, so the rest may be mounted read-only
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    DATA_DIR=/data \
    RESULTS_DIR=/results \
    STATIC_ROOT=/opt/static \
    HF_HOME=/data/huggingface
USER 10001:10001

FROM base AS web
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["python", "manage.py", "web"]

FROM base AS worker
ENV WORKER_BEAT_FILE=/tmp/worker.beat
# fails when the worker has not touched its file for a minute
HEALTHCHECK --interval=20s --timeout=5s --start-period=90s \
    CMD ["sh", "-c", "test -n \"$(find /tmp/worker.beat -newermt '-60 seconds')\""]
CMD ["python", "manage.py", "worker"]

FROM base AS inference
ENV SERVE_HOST=0.0.0.0
EXPOSE 8100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8100/healthz', timeout=4)"]
CMD ["python", "manage.py", "serve"]
