#!/bin/sh
# All tests with the figures that the documentation states, and a report of the run that is
# committed: docs/reports/test-full.md. The seed is the run's own; WALTIDE_SEED replays one.
set -eu
cd "$(dirname "$0")/.."

export WALTIDE_SEED="${WALTIDE_SEED:-$(date +%s)}"
# What the documentation states, each with what it counts; the environment overrides.
figures='WALTIDE_RANDOM_TRANSACTIONS 1000 random transactions on each version
WALTIDE_RANDOM_VALUES 100000 random values on each version, in binary and in text
WALTIDE_FUZZ_ITERATIONS 5000000 mutated messages decoded
WALTIDE_COPY_CRASHES 100 crashes in a COPY of 1,000 rows
WALTIDE_KILLS 100 kills on each version with exactly once
WALTIDE_KAFKA_PAUSE_SECONDS 600 seconds for which Kafka stands still
WALTIDE_SNAPSHOT_ROWS 1000000 rows read by a snapshot beside writers
WALTIDE_SNAPSHOT_KILLS 20 kills of the daemon meanwhile
WALTIDE_VERIFY_ROUNDS 50 comparisons of a table that writers change
WALTIDE_SAVEPOINTS 10000 savepoints in a transaction
WALTIDE_LARGE_MEGABYTES 2000 megabytes in a transaction
WALTIDE_REGISTRY_KILLS 50 kills while schemas are registered
WALTIDE_SCALE_PIPELINES 100 pipelines in a daemon
WALTIDE_SCALE_TABLES 10000 tables in a database
WALTIDE_TORTURE_CYCLES 40 cycles of torture in each mode
WALTIDE_API_EXAMPLES 300 requests of each kind that the document of the API allows or does not
WALTIDE_PAGE_PIPELINES 40 pipelines on the status page
WALTIDE_CONNECTIONS 10000 connections that begin a request and do not go on'
while read -r name figure what; do
    eval "export $name=\${$name:-$figure}"
done <<EOF
$figures
EOF

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
    echo "$figures" | while read -r name _ what; do
        eval "printf -- '- %s: %s\n' \"$what\" \"\$$name\""
    done
    printf '\n```text\n'
    awk '/^     Running|^   Doc-tests/ { sub(/ \(.*/, ""); sub(/^ +/, ""); name = $0 }
         /^test result:/ { print name ": " $0 }
         /^test .*(random|on_1[4-8]).* \.\.\. / { print "    " $0 }' "$log"
    printf '```\n'
} >"$report"
cat "$report"
[ "$result" = passed ] || { echo "the whole output: $log" >&2; exit 1; }
