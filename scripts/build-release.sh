#!/bin/sh
# Builds the daemon as it is released: the same commit and compiler give the same bytes wherever the
# sources and the crates lie. The result is target/release/waltide. What is given goes to cargo, as in
# scripts/build-release.sh --no-default-features, which leaves out what Cargo.toml says.
set -eu
cd "$(dirname "$0")/.."

# The compiler writes paths into messages of panics, C compilers into __FILE__.
home=${CARGO_HOME:-$HOME/.cargo}
sources=$(pwd)
flags="--remap-path-prefix=$sources=/waltide --remap-path-prefix=$home=/cargo"
RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }$flags"
CFLAGS="${CFLAGS:+$CFLAGS }-ffile-prefix-map=$sources=/waltide -ffile-prefix-map=$home=/cargo"
export RUSTFLAGS CFLAGS CXXFLAGS="$CFLAGS"
# OpenSSL and librdkafka say when they were built.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null) || SOURCE_DATE_EPOCH=0
fi
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
[ -n "${WALTIDE_VERSION:-}" ] || unset WALTIDE_VERSION

exec cargo build --release --locked --package waltide "$@"
