# gradwatchd in a container: only the server, its command line and the libraries they load, run as an
# unprivileged user; no shell, no package manager.
#
#   docker build -t gradwatch .
#   docker run --read-only --cap-drop=ALL -p 127.0.0.1:7070:7070 -p 127.0.0.1:7071:7071 gradwatch
#
# Any Debian 12 will do as BASE; it is needed to build and leaves nothing in the image but the
# libraries that the programs load.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS builder
COPY deploy/packages deploy/install-packages /src/deploy/
RUN /src/deploy/install-packages build
COPY . /src/
WORKDIR /src
# What `gradwatch --version` reports; the build context has no history.
ARG REVISION=unknown
# Compiler results are kept here when a folder is mounted on it (buildah build --volume).
ENV CCACHE_DIR=/ccache CCACHE_NOHASHDIR=1
# One step, so that only the result is kept.
RUN cmake --preset release -DGRADWATCH_REVISION=${REVISION} && \
    cmake --build --preset release --target gradwatchd gradwatch && \
    deploy/image-root build/release /image && \
    rm -rf build

FROM scratch AS runtime
ARG REVISION=unknown
LABEL org.opencontainers.image.title="gradwatch" \
      org.opencontainers.image.description="Trains recurrent networks and shows what their gradient does" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=builder /image/ /
USER 65532:65532
EXPOSE 7070 7071
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s CMD ["/usr/bin/gradwatch", "health"]
ENTRYPOINT ["/usr/bin/gradwatchd"]
# Inside a container loopback would reach nobody. The port is plain text and open to whoever can reach
# it: publish it on the host's loopback, as above, or give TLS settings in place of these.
CMD ["--listen=0.0.0.0:7070", "--http-listen=0.0.0.0:7071", "--insecure-listen"]
