# The base can be replaced: --build-arg BASE=registry.example.org/python:3.13-slim
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
COPY . /src
RUN python3 -m venv /opt/moorage \
    && /opt/moorage/bin/pip install --no-cache-dir -c /src/constraints.txt '/src[postgres]' \
    && /opt/moorage/bin/pip uninstall --yes setuptools pip

FROM ${BASE}
COPY --from=build /opt/moorage /opt/moorage
RUN groupadd --system --gid 10001 moorage \
    && useradd --system --uid 10001 --gid 10001 --home-dir /data moorage \
    && install -d -o moorage -g moorage -m 0700 /data
ENV PATH=/opt/moorage/bin:$PATH PYTHONUNBUFFERED=1 MOORAGE_DATA=/data
# By number: Kubernetes cannot tell from a name that it is not root.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD \
    ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5000/healthz', timeout=2)"]
ENTRYPOINT ["moorage", "serve"]
