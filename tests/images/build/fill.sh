#!/usr/bin/env bash
# Makes an image in which `Dockerfile` compiles fast: this machine's Rust, its crates, and what it compiled of them, so that
# only our own crates are left to do. Runs inside the image that is to be, with those mounted read-only below /host.
#
# usage: fill.sh PACKAGE…
set -euo pipefail
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" > /dev/null
rm -rf /var/lib/apt/lists/*

mkdir -p "$RUSTUP_HOME" "$CARGO_HOME" /src/target
tar -C /host/rustup -c --exclude share/doc --exclude 'toolchains/nightly-*' . | tar -x -C "$RUSTUP_HOME"
for toolchain in "$RUSTUP_HOME"/toolchains/*; do
    # A name for another one is a link into the other home.
    [[ ! -L $toolchain ]] || ln -sfn "$(basename "$(readlink "$toolchain")")" "$toolchain"
done
# But for its passwords.
tar -C /host/cargo -c --exclude 'credentials*' . | tar -x -C "$CARGO_HOME"
# As `cargo install` finds it, which then has nothing to do.
cp -a /host/target/tools/.crates* "$CARGO_HOME/"
cp -a /host/target/tools/bin/bpf-linker "$CARGO_HOME/bin/"

cd /host/target
# Libraries of others with what cargo knows of them; ours are to be compiled there, and tests are not needed.
find release debug -type f \
    \( -path '*/build/*' -o -path '*/.fingerprint/*' -o -name '*.rlib' -o -name '*.rmeta' -o -name '*.so' -o -name '*.d' \) \
    -not -path '*/incremental/*' -print0 \
    | grep -zvE '/(lib)?(dt|xtask|example)[_-]' \
    | tar --null -T - -c | tar -x -C /src/target
cp -a bpf /src/target/
