# The server on a CPU: page and API on port 7860, as a user without rights.
#
#     docker build -t image2cad .
#     docker run --rm -p 7860:7860 -e IMAGE2CAD_KEYS=... image2cad
#
# compose.yaml has limits besides; docs/operating.md says what was tried of this.
FROM python:3.11-slim-bookworm

# As in packages.txt: CadQuery's geometry library loads it.
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 && rm -rf /var/lib/apt/lists/*

WORKDIR /srv/image2cad

# What changes rarely comes first. PyPI's torch brings CUDA's libraries; an index that has builds
# without them can be named: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL
COPY requirements.txt constraints.txt ./
RUN python -m pip install --no-cache-dir -r requirements.txt -c constraints.txt

COPY . .

# Uploads, files of the page and stored jobs; a volume that is mounted here gets this owner.
RUN mkdir -p /data && chown 65534:65534 /data
USER 65534:65534
ENV HOME=/tmp NUMBA_CACHE_DIR=/tmp/numba HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
ENV GRADIO_TEMP_DIR=/data/files IMAGE2CAD_JOBS=/data/jobs.sqlite
ENV IMAGE2CAD_HOST=0.0.0.0 IMAGE2CAD_PORT=7860
EXPOSE 7860

HEALTHCHECK --interval=30s --timeout=5s --start-period=120s CMD python -c "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['IMAGE2CAD_PORT'] + '/ready', timeout=4)"

CMD ["python", "app.py"]
