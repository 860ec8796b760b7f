#!/usr/bin/env bash
# Plants one bug after another (those of tests/torture/plants, or those that are named), builds the
# daemon with it, and tortures it until the checker complains, five minutes at most. Fails where it does not.
set -euo pipefail
cd "$(dirname "$0")/.."

# So long each bug has to show.
MINUTES=${MINUTES:-5}
SEED=${SEED:-1}
target=${CARGO_TARGET_DIR:-target}

if [ "${1:-}" != plants ]; then
    echo "usage: scripts/torture.sh plants [PLANT...]" >&2
    exit 2
fi
shift
[ -z "$(git status --porcelain -- src crates)" ] || {
    echo "torture: src and crates have changes that are not committed" >&2
    exit 1
}
# Ctrl-C in the middle must not leave a bug behind.
trap 'git checkout --quiet -- src crates' EXIT

list=$(grep -v '^#' tests/torture/plants)
cargo build --quiet --locked --workspace --bins
mkdir -p "$target/torture-plants"
missed=0
count=0
for name in ${*:-$(echo "$list" | cut -d' ' -f1)}; do
    mode=$(echo "$list" | sed -n "s/^$name //p")
    [ -n "$mode" ] || { echo "torture: $name is not in tests/torture/plants" >&2; exit 2; }
    log=$target/torture-plants/$name.log
    git apply "tests/plants/$name.patch"
    cargo build --quiet --locked --workspace --bins 2>"$log" || {
        cat "$log" >&2
        echo "torture: $name does not build: bring it up to date" >&2
        exit 1
    }
    cp "$target/debug/waltide" "$target/torture-plants/waltide"
    git checkout --quiet -- src crates
    began=$SECONDS
    status=0
    "$target/debug/waltide-torture" --daemon "$target/torture-plants/waltide" --minutes "$MINUTES" \
        --seed "$SEED" --mode "$mode" >"$log" 2>&1 || status=$?
    count=$((count + 1))
    case $status in
    0) missed=$((missed + 1)) && echo "NOT CAUGHT  $name, $mode" ;;
    1)
        echo "caught      $name, $mode, after $((SECONDS - began)) s"
        # What it said, so that one that was caught for another reason shows.
        grep -m1 VIOLATION "$log" | cut -c1-220 | sed 's/^/            /'
        ;;
    *)
        cat "$log" >&2
        echo "torture: $name: it could not be tortured" >&2
        exit 1
        ;;
    esac
done
cargo build --quiet --locked --workspace --bins
echo "torture: $count planted, $missed not caught"
[ "$missed" -eq 0 ]
