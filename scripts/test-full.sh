#!/bin/sh
# All tests with the figures that the documentation states, and a report of the run that is
# committed: docs/reports/test-full.md. The seed is the run's own; WALTIDE_SEED replays one.
set -eu
cd "$(dirname "$0")/.."

WALTIDE_SEED=${WALTIDE_SEED:-$(date +%s)}
WALTIDE_RANDOM_TRANSACTIONS=${WALTIDE_RANDOM_TRANSACTIONS:-1000}
WALTIDE_RANDOM_VALUES=${WALTIDE_RANDOM_VALUES:-100000}
WALTIDE_FUZZ_ITERATIONS=${WALTIDE_FUZZ_ITERATIONS:-5000000}
WALTIDE_COPY_CRASHES=${WALTIDE_COPY_CRASHES:-100}
WALTIDE_KAFKA_PAUSE_SECONDS=${WALTIDE_KAFKA_PAUSE_SECONDS:-600}
WALTIDE_SNAPSHOT_ROWS=${WALTIDE_SNAPSHOT_ROWS:-1000000}
WALTIDE_SNAPSHOT_KILLS=${WALTIDE_SNAPSHOT_KILLS:-20}
WALTIDE_CONNECTIONS=${WALTIDE_CONNECTIONS:-10000}
WALTIDE_SAVEPOINTS=${WALTIDE_SAVEPOINTS:-10000}
WALTIDE_LARGE_MEGABYTES=${WALTIDE_LARGE_MEGABYTES:-2000}
WALTIDE_REGISTRY_KILLS=${WALTIDE_REGISTRY_KILLS:-50}
export WALTIDE_SNAPSHOT_ROWS WALTIDE_SNAPSHOT_KILLS WALTIDE_SAVEPOINTS WALTIDE_LARGE_MEGABYTES
WALTIDE_SCALE_TABLES=${WALTIDE_SCALE_TABLES:-10000}
export WALTIDE_REGISTRY_KILLS WALTIDE_SCALE_TABLES
export WALTIDE_CONNECTIONS
export WALTIDE_COPY_CRASHES WALTIDE_KAFKA_PAUSE_SECONDS
export WALTIDE_SEED WALTIDE_RANDOM_TRANSACTIONS WALTIDE_RANDOM_VALUES WALTIDE_FUZZ_ITERATIONS

log=target/test-full.log
report=docs/reports/test-full.md
mkdir -p target "$(dirname "$report")"
started=$(date +%s)
result=passed
# A pipe would hide the tests' own exit code.
${CARGO:-cargo} test --workspace --locked --no-fail-fast >"$log" 2>&1 || result=failed
minutes=$((($(date +%s) - started + 59) / 60))

{
    printf '# The full test run\n\n'
    printf 'Written by `make test-full`.\n\n'
    printf -- '- result: **%s**, after %s minutes\n' "$result" "$minutes"
    printf -- '- commit: %s%s\n' "$(git rev-parse --short HEAD)" \
        "$(git diff --quiet HEAD -- . ":!$report" || printf ' and uncommitted changes')"
    printf -- '- date: %s\n' "$(date -u +%Y-%m-%d)"
    printf -- '- machine: %s cores, %s\n' "$(getconf _NPROCESSORS_ONLN)" "$(uname -sm)"
    printf -- '- seed: %s\n' "$WALTIDE_SEED"
    printf -- '- connections that begin a request and do not go on: %s\n' "$WALTIDE_CONNECTIONS"
    printf -- '- random transactions on each version: %s\n' "$WALTIDE_RANDOM_TRANSACTIONS"
    printf -- '- random values on each version, in binary and in text: %s\n' "$WALTIDE_RANDOM_VALUES"
    printf -- '- mutated messages decoded: %s\n' "$WALTIDE_FUZZ_ITERATIONS"
    printf '\n```text\n'
    awk '/^     Running|^   Doc-tests/ { sub(/ \(.*/, ""); sub(/^ +/, ""); name = $0 }
         /^test result:/ { print name ": " $0 }
         /^test .*(random|on_1[4-8]).* \.\.\. / { print "    " $0 }' "$log"
    printf '```\n'
} >"$report"
cat "$report"
[ "$result" = passed ] || { echo "the whole output: $log" >&2; exit 1; }
