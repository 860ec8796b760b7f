#!/bin/sh
# Counts the instructions that a ten-column row takes to be decoded and encoded, and compares them
# with docs/reports/instructions.txt: more than 5 per cent above it is a failure. Clocks are noisy,
# instructions are not. `scripts/instructions.sh --write` takes the new figures for good; do that
# in a commit of its own that says why.
set -eu
cd "$(dirname "$0")/.."

figures=docs/reports/instructions.txt
if ! command -v valgrind >/dev/null 2>&1; then
    echo "instructions: valgrind counts them and is not there: apt-get install valgrind" >&2
    exit 1
fi
out=${CARGO_TARGET_DIR:-target}/instructions
mkdir -p "$out"
"${CARGO:-cargo}" bench --quiet --locked --package waltide-core --bench instructions --no-run \
    --message-format json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' >"$out/executable"
executable=$(cat "$out/executable")

# All instructions of a run over so many rows.
count() {
    valgrind --tool=callgrind --callgrind-out-file="$out/$1.$2" "$executable" "$1" "$2" \
        2>"$out/log" || { cat "$out/log" >&2; exit 1; }
    sed -n 's/^summary: //p' "$out/$1.$2"
}

# What a run costs beside its rows is in both and falls out.
for stage in decode waltide debezium; do
    few=$(count "$stage" 3000)
    many=$(count "$stage" 13000)
    echo "$stage $(((many - few) / 10000))"
done >"$out/counted"

if [ "${1:-}" = --write ]; then
    cp "$out/counted" "$figures"
fi
awk 'NR == FNR { known[$1] = $2; next }
    { change = ($2 / known[$1] - 1) * 100
      printf "%-10s %6d instructions a row, %+.1f per cent\n", $1, $2, change
      if (change > 5) failed = 1 }
    END { exit failed }' "$figures" "$out/counted" || {
    echo "instructions: more than 5 per cent above $figures" >&2
    exit 1
}
