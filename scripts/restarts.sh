#!/bin/sh
# How long a release build takes from its start to `streaming`, with everything up and a pipeline
# that has a checkpoint: the median of WALTIDE_RESTARTS (20) restarts. The goal is below a second.
set -eu
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
"$cargo" build --quiet --locked --release --bin waltide
WALTIDE_RESTARTS=${WALTIDE_RESTARTS:-20}
WALTIDE_BINARY=${WALTIDE_BINARY:-${CARGO_TARGET_DIR:-$PWD/target}/release/waltide}
export WALTIDE_RESTARTS WALTIDE_BINARY
out=$("$cargo" test --quiet --locked --workspace --test it -- --nocapture --exact \
    delivery_restarts::a_restart_streams_soon_after 2>&1) || { echo "$out" >&2; exit 1; }
echo "$out" | grep '^restart to streaming'
