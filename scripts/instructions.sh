#!/usr/bin/env bash
# Instructions of put, get, cut, seal and apply, counted by callgrind over benches/instructions.rs: the same at
# every run, however busy the machine is. Takes some minutes; needs valgrind (Debian: apt-get install valgrind).
#   scripts/instructions.sh                  the table
#   scripts/instructions.sh OLD_EXECUTABLE   the same for an older build of the bench, and the ratios
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

command -v valgrind >/dev/null || {
    echo "instructions: valgrind is missing; Debian and Ubuntu: apt-get install valgrind" >&2
    exit 1
}
"$root/scripts/setup.sh"
provide_rocksdb
# Not the release profile: it inlines functions whose instructions are counted.
with_heartbeat cargo build --locked --all-features --bench instructions
new=$(cargo build --locked --all-features --bench instructions --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*instructions-[^"]*\)".*/\1/p' | tail -n 1)

scratch=$(mktemp -d)
trap 'stop_heartbeat; rm -rf "$scratch"' EXIT

# Name of a row, and what the name of the function ends with whose inclusive count it is: its module
# may have moved between two builds.
rows=(
    "put|instructions::measured_puts"
    "get from memory|instructions::measured_gets_from_memory"
    "get from the table|instructions::measured_gets_from_the_table"
    "cut|StateStore>?::cut"
    "seal|delta::format::writer::seal"
    "apply|Table>?::apply"
)

# Prints one count for each row.
count() {
    with_heartbeat valgrind --tool=callgrind --callgrind-out-file="$scratch/$2" "$1" >"$scratch/$2.log" 2>&1
    callgrind_annotate --inclusive=yes --threshold=100 "$scratch/$2" >"$scratch/$2.txt" 2>"$scratch/$2.err"
    local row
    for row in "${rows[@]}"; do
        # The largest, where a function stands there once for each file that was inlined into it.
        grep -E "${row#*|}([^[:alnum:]_]|\$)" "$scratch/$2.txt" | awk '{ gsub(/,/, "", $1); print $1 }' | sort -n | tail -n 1
    done
}

say "Counting"
count "$new" new >"$scratch/new.counts"
if [ $# -gt 0 ]; then
    count "$1" old >"$scratch/old.counts"
    paste -d'|' <(printf '%s\n' "${rows[@]%%|*}") "$scratch/old.counts" "$scratch/new.counts" |
        awk -F'|' '{ printf "%-36s %15.0f %15.0f  %.3f\n", $1, $2, $3, $3 / $2 }'
else
    paste -d'|' <(printf '%s\n' "${rows[@]%%|*}") "$scratch/new.counts" | awk -F'|' '{ printf "%-36s %15.0f\n", $1, $2 }'
fi
