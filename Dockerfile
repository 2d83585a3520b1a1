# The image of dt-agent and dt-console: built from source in one stage, without compilers in the other.
#
#   docker build -t distributed-trace .
#
# Good for BuildKit and for the builder before it. Behind a proxy or a mirror give base images that know it, with their
# certificates and a config.toml in CARGO_HOME: --build-arg DT_BUILD_IMAGE=… --build-arg DT_BASE_IMAGE=…
ARG DT_BUILD_IMAGE=rust:1.95.0-slim-bookworm
ARG DT_BASE_IMAGE=debian:12.11-slim

FROM ${DT_BUILD_IMAGE} AS build
WORKDIR /src
# What `cargo xtask setup --for build` installs, in layers that outlive a change of the source; a test compares them.
RUN apt-get update && apt-get install -y --no-install-recommends \
        cmake g++ make pkg-config libssl-dev libcurl4-openssl-dev zlib1g-dev \
        llvm-22-dev libpolly-22-dev libzstd-dev \
    && rm -rf /var/lib/apt/lists/*
COPY rust-toolchain.toml ./
RUN rustup component add rust-src
RUN LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked \
        --no-default-features --features llvm-22 --target-dir /tmp/bpf-linker \
    && rm -rf /tmp/bpf-linker
# What `--version` says, because the repository is not in the context: --build-arg DT_COMMIT=$(git rev-parse --short=12 HEAD)
ARG DT_COMMIT
# Dates of the files, and with BuildKit of the image: --build-arg SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
ARG SOURCE_DATE_EPOCH=0
COPY . .
# Build scripts look at the date, and would compile anew what is compiled.
RUN env -u SOURCE_DATE_EPOCH cargo xtask build && strip target/release/dt-agent target/release/dt-console \
    && cargo xtask sbom > target/release/sbom.cdx.json \
    && touch --date="@${SOURCE_DATE_EPOCH}" target/release/dt-agent target/release/dt-console target/release/sbom.cdx.json

FROM ${DT_BASE_IMAGE}
# A base that has both already needs no network.
RUN dpkg --status ca-certificates libssl3 >/dev/null 2>&1 \
    || { apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 \
    && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /src/target/release/dt-agent /src/target/release/dt-console /usr/local/bin/
COPY --from=build /src/target/release/sbom.cdx.json /usr/share/doc/distributed-trace/
ARG DT_COMMIT
LABEL org.opencontainers.image.title="distributed-trace" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.revision="${DT_COMMIT}"
# As in packaging/debian/dt-agent.service.
ENV MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072
# Identity, spool and, without Kafka, the feed.
VOLUME /var/lib/distributed-trace
ENTRYPOINT ["dt-agent"]
CMD ["run"]
