# docker build -t minibroker . && docker run -p 127.0.0.1:7272:7272 -p 127.0.0.1:7273:7273 -v minibroker:/data minibroker
# In a cluster or with compose: examples/deploy/.
# Extras of the package, as --build-arg EXTRAS=[nats] for a log in a stream.
ARG EXTRAS=""
FROM python:3.12-slim AS build
ARG EXTRAS
COPY . /source
RUN pip wheel --no-cache-dir --wheel-dir /wheels "/source${EXTRAS}"

FROM python:3.12-slim
ARG EXTRAS
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels "minibroker${EXTRAS}" \
    && useradd --system --uid 7272 --no-create-home minibroker \
    && install --directory --mode 700 --owner minibroker /data
# By number, so that an orchestrator can see that it is not root.
USER 7272
VOLUME /data
# Clients; and the page, the API and /metrics.
EXPOSE 7272 7273
# Inside the container every address is the container's own; who may reach it is decided by -p.
ENV MINIBROKER_DATA_DIR=/data MINIBROKER_HOST=0.0.0.0 MINIBROKER_HTTP=0.0.0.0:7273 MINIBROKER_INSECURE=1 PYTHONUNBUFFERED=1
# A recovery of a large log takes its time: until the start period is over, a failed check does not count.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 CMD ["minibroker", "ping"]
# `docker stop` waits 10 s and then kills: the drain has to be over before (--drain-timeout).
STOPSIGNAL SIGTERM
ENV MINIBROKER_DRAIN_TIMEOUT=8
ENTRYPOINT ["minibroker"]
CMD ["serve"]
