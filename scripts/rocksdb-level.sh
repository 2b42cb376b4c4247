#!/usr/bin/env bash
# What another optimisation level of RocksDB costs at run time: benches/table and benches/store, each linked
# with a library of -O3 and with one of LEVEL, run in turns. Prints the median of each benchmark's medians, in
# microseconds, and LEVEL's over that of -O3. For a machine on which nothing else runs.
#
#   scripts/rocksdb-level.sh [LEVEL [ROUNDS [FILTER]]]      default: -O2 5, all benchmarks
#
# The first run compiles a library (some 6 minutes on 2 cores) and both benches twice. Libraries stay in the
# cache, executables and results in target/rocksdb-level.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

level=${1:--O2}
rounds=${2:-5}
filter=${3:-}
case $level in
-O[012s]) ;;
*) echo "rocksdb-level: LEVEL is -O0, -O1, -O2 or -Os, not $level" >&2; exit 2 ;;
esac
out=$target/rocksdb-level
benches=(table store)
unset ROCKSDB_LIB_DIR

# The executables that are linked with the library of one level, under names of their own. CXXFLAGS stand after
# -O3 in the compiler's arguments, and the last level counts. Without them it is the library that all use.
build() {
    local library bench executable flags=$1
    [ "$flags" != -O3 ] || flags=
    library=$(CXXFLAGS=$flags scripts/rocksdb.sh)
    for bench in "${benches[@]}"; do
        executable=$(ROCKSDB_LIB_DIR=$library ROCKSDB_STATIC=1 cargo bench --locked --all-features --no-run \
            --bench "$bench" --message-format=json 2>"$out/build.log" |
            sed -n "s|.*\"executable\":\"\([^\"]*/$bench-[^\"]*\)\".*|\1|p" | tail -n 1)
        [ -n "$executable" ] || {
            echo "rocksdb-level: benches/$bench does not build:" >&2
            tail -n 20 "$out/build.log" >&2
            exit 1
        }
        cp "$executable" "$out/$bench$1"
    done
}

# "BENCHMARK NANOSECONDS", one a line.
medians() {
    find "$1" -path '*/new/estimates.json' | sort | while read -r file; do
        name=${file#"$1"/}
        name=$(tr ' ' '_' <<<"${name%/new/estimates.json}")
        printf '%s %s\n' "$name" \
            "$(sed 's/.*"median":{"confidence_interval":{[^}]*},"point_estimate":\([0-9.e+-]*\).*/\1/' "$file")"
    done
}

"$root/scripts/setup.sh"
mkdir -p "$out"
rm -rf "$out"/run.*
for each in -O3 "$level"; do
    say "Benches with RocksDB $each"
    with_heartbeat build "$each"
done
for ((round = 1; round <= rounds; round++)); do
    # The order turns, so that neither side always runs on the warmer machine.
    order=(-O3 "$level")
    ((round % 2)) || order=("$level" -O3)
    for bench in "${benches[@]}"; do
        for each in "${order[@]}"; do
            say "Round $round of $rounds: $bench, $each"
            CRITERION_HOME=$out/run.$round$each with_heartbeat "$out/$bench$each" --bench ${filter:+"$filter"} >"$out/$bench$each.log" 2>&1
        done
    done
done

say "Median of $rounds rounds, in microseconds"
for each in -O3 "$level"; do
    for ((round = 1; round <= rounds; round++)); do
        medians "$out/run.$round$each" | sed "s|\$| $each|"
    done
done | sort -k1,1 -k3,3 -k2,2g | awk -v level="$level" '
    function median(text,   values, n) {
        n = split(text, values, " ")
        return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
    }
    { figures[$1, $3] = figures[$1, $3] " " $2; names[$1] = 1 }
    END {
        for (name in names) {
            old = median(figures[name, "-O3"]); new = median(figures[name, level])
            printf "%-48s %12.2f %12.2f  %.3f\n", name, old / 1e3, new / 1e3, new / old
        }
    }' | sort
