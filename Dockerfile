# syntax=docker/dockerfile:1.7
# The daemon and what it needs of a system, nothing else: no shell, no package manager, not root.
#
#   docker build --tag waltide .
#   docker run --read-only --volume ./waltide.yaml:/etc/waltide/waltide.yaml:ro waltide

# The version Cargo.toml asks for, on the Debian whose libc the last stage has.
ARG RUST_VERSION=1.89
FROM rust:${RUST_VERSION}-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# As in `waltide --version`: 0.1.0 (1feade0).
ARG WALTIDE_VERSION
# Dependencies stay in these caches between builds, so that a change of ours compiles only ours.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    scripts/build-release.sh \
    && install -D target/release/waltide /image/usr/local/bin/waltide \
    && install -D LICENSE /image/usr/share/doc/waltide/LICENSE \
    && install -d -o 65532 -g 65532 /image/var/lib/waltide \
    && install -d /image/etc/waltide

# libc, libgcc and certificates of authorities.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG WALTIDE_VERSION
LABEL org.opencontainers.image.title="waltide" \
      org.opencontainers.image.description="Change data capture from PostgreSQL to Kafka: every committed change as Avro, nothing lost" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${WALTIDE_VERSION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
COPY --from=build /image /
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
ENV WALTIDE_CONFIG=/etc/waltide/waltide.yaml \
    WALTIDE_HTTP__LISTEN=0.0.0.0:9464
# Disposable and bounded; the only place that is written to.
VOLUME /var/lib/waltide
EXPOSE 9464
# The daemon delivers what it holds before it ends; give it 30 seconds.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/waltide", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/waltide"]
CMD ["run"]
