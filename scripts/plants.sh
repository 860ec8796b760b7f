#!/usr/bin/env bash
# Plants one bug after another (tests/plants/*.patch, or those that are named) and runs the test
# that must catch it. Fails where a bug is not caught, or where its test could not be run.
# With --check only whether each can be planted and names a test that there is.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = --check ]; then
    stale=0
    for patch in tests/plants/*.patch; do
        test=$(sed -n 's/^Caught by: //p' "$patch")
        # A test made by a macro for each version is named after it: a::b::on_17.
        name=${test%::on_*}
        git apply --check "$patch" || { echo "plants: $patch does not apply" >&2; stale=1; }
        grep -rqE "\b${name##*::}\b" tests/it crates/core/tests || { echo "plants: $patch: no test $test" >&2; stale=1; }
    done
    exit "$stale"
fi

[ -z "$(git status --porcelain -- src crates)" ] || {
    echo "plants: src and crates have changes that are not committed" >&2
    exit 1
}
# Ctrl-C in the middle must not leave a bug behind.
trap 'git checkout --quiet -- src crates' EXIT

if [ $# -gt 0 ]; then
    patches=("${@/#/tests/plants/}")
    patches=("${patches[@]/%/.patch}")
else
    patches=(tests/plants/*.patch)
fi
# A test on real servers, or PACKAGE/TARGET::TEST.
run() {
    local of=(--workspace --test it) name=$1
    if [[ $name == */* ]]; then
        local target=${name#*/}
        of=(--package "${name%%/*}" --test "${target%%::*}") name=${target#*::}
    fi
    cargo test --quiet --locked "${of[@]}" -- --exact "$name" </dev/null >"$log" 2>&1
}
log=$(mktemp)
missed=0
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    test=$(sed -n 's/^Caught by: //p' "$patch")
    git apply "$patch"
    if ! cargo build --quiet --locked --workspace --tests 2>"$log"; then
        cat "$log" >&2
        echo "plants: $name does not build: bring it up to date" >&2
        exit 1
    fi
    if run "$test"; then
        echo "NOT CAUGHT  $name by $test"
        missed=$((missed + 1))
    elif grep -q '0 passed; 1 failed' "$log"; then
        echo "caught      $name by $test"
        # What the test said, so that one that failed for another reason shows.
        grep -A1 -m1 'panicked at' "$log" | tail -n 1 | cut -c1-160 | sed 's/^/            /'
    else
        cat "$log" >&2
        echo "plants: $test did not run" >&2
        exit 1
    fi
    git checkout --quiet -- src crates
done
rm -f "$log"
echo "plants: ${#patches[@]} planted, $missed not caught"
[ "$missed" -eq 0 ]
