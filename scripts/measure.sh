#!/usr/bin/env bash
# Runs the scenarios `reference` and `full-speed` in all modes with the store model, and a restore of each
# mode in a process of its own, and writes the results and the report into a folder: some 25 minutes.
#
#   scripts/measure.sh [--out DIR] [--short] [--repeat N] [-- OPTIONS OF compare AND load]
#
# --out DIR     where results go (default: target/measure); files of an earlier run are replaced
# --short       20 s instead of the scenarios' own durations: to see that it works, not to quote
# --repeat N    every mode N times, in turns (default 1)
# BINARY=path   measures that program instead of building one; it may be of an earlier version
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

out=$target/measure
repeat=1
options=()
while [ $# -gt 0 ]; do
    case $1 in
    --out) out=${2:?--out needs a folder}; shift 2 ;;
    --repeat) repeat=${2:?--repeat needs a number}; shift 2 ;;
    --short) options+=(--duration 20s --warm-up 2s --keys 300k); shift ;;
    --) shift; options+=("$@"); break ;;
    *) echo "measure: unknown option $1; see the head of $0" >&2; exit 2 ;;
    esac
done
if [ -z "${BINARY:-}" ]; then
    "$root/scripts/setup.sh"
    provide_rocksdb
    with_heartbeat cargo build --locked --profile "$profile" --all-features --bins
    BINARY=$programs/alluvium
fi
# How the program spells a run's job, its temporary directory, and the file of its result.
job=() temp=--temp-dir result=--output
# Not `| grep -q`, which ends the program by a closed pipe.
if grep -q -e '--store <URL>' <<<"$("$BINARY" load --help)"; then
    job=(--store) temp=--dir result=--json
fi
mkdir -p "$out"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'stop_heartbeat; rm -rf "$work"' EXIT

for scenario in reference full-speed; do
    say "Scenario $scenario in all modes"
    "$BINARY" compare "${job[@]}" "$work/store" --scenario "$scenario" --repeat "$repeat" "$temp" "$work/local" \
        "$result" "$out/$scenario.json" "${options[@]}" | tee "$out/$scenario.txt"
    rm -rf "$work/store"
done

for mode in changelog native; do
    say "Restore of mode $mode in a process of its own"
    "$BINARY" load "${job[@]}" "$work/$mode" --scenario reference --mode "$mode" --duration 45s \
        --dir "$work/local-$mode" "${options[@]}" >/dev/null
    rm -rf "$work/local-$mode"
    "$BINARY" restore-test "$work/$mode" --store-model 30ms,50MB/s,100MB/s --dir "$work/restored-$mode" \
        --verify "$result" "$out/restore-$mode.json" | tee "$out/restore-$mode.txt"
    rm -rf "${work:?}/$mode" "$work/restored-$mode"
done

say "Report"
"$BINARY" report "$out"/{reference,full-speed,restore-changelog,restore-native}.json -o "$out/report.html"
say "Results are in $out"
