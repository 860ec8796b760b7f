#!/usr/bin/env bash
# Plants one bug after another (tests/plants/*.patch, or those that are named) and runs the test
# that must catch it. Fails where a bug is not caught, or where its test fails without it.
set -euo pipefail
cd "$(dirname "$0")/.."

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
run() { cargo test --quiet --locked --package waltide --test it -- --exact "$1" </dev/null >"$log" 2>&1; }
log=$(mktemp)
missed=0
for patch in "${patches[@]}"; do
    name=$(basename "$patch" .patch)
    test=$(sed -n 's/^Caught by: //p' "$patch")
    git apply "$patch"
    if ! cargo build --quiet --locked --tests 2>"$log"; then
        cat "$log" >&2
        echo "plants: $name does not build: bring it up to date" >&2
        exit 1
    fi
    if run "$test"; then
        echo "NOT CAUGHT  $name by $test"
        missed=$((missed + 1))
    elif grep -q '0 passed; 1 failed' "$log"; then
        echo "caught      $name by $test"
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
