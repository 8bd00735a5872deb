# The Node client of `make cluster-test`; its packages are beside this file when it is built.
FROM debian:bookworm-slim
RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends nodejs > /dev/null && rm -rf /var/lib/apt/lists/*
COPY . /load
ENV PROTOS=/load/protos
USER 65532:65532
