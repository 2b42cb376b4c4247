#!/usr/bin/env bash
# Instructions of the write path, counted by callgrind over benches/instructions.rs: nearly the same at every run,
# however busy the machine is. Takes some minutes; needs valgrind (Debian: apt-get install valgrind).
#   scripts/instructions.sh                  the counts, and how they compare with those in benches/instructions.txt
#   scripts/instructions.sh --check          the same, and fails if a count is 5 % or more above or below
#   scripts/instructions.sh --write          puts the counts into that file
#   scripts/instructions.sh OLD_EXECUTABLE   compares with an older build of the bench instead
#
# Counts are compared only with those of the same compilers and the same kind of processor, because libraries choose
# their loops by what the processor can do. --check passes over others, and says so.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

recorded=$root/benches/instructions.txt
tolerance=5
mode=show old=
case "${1:-}" in
"") ;;
--check) mode=check ;;
--write) mode="write" ;;
-*) echo "instructions: unknown option $1; see the head of $0" >&2; exit 2 ;;
*) old=$1 ;;
esac

if [ $mode = check ]; then
    "$root/scripts/setup.sh" --valgrind
    command -v valgrind >/dev/null || exit 0 # setup has said so
else
    "$root/scripts/setup.sh"
fi
command -v valgrind >/dev/null || {
    echo "instructions: valgrind is missing; Debian and Ubuntu: apt-get install valgrind" >&2
    exit 1
}
provide_rocksdb
# Not the release profile: it inlines functions whose instructions are counted.
with_heartbeat cargo build --locked --all-features --bench instructions
new=$(cargo build --locked --all-features --bench instructions --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*instructions-[^"]*\)".*/\1/p' | tail -n 1)

scratch=$(mktemp -d)
trap 'stop_heartbeat; rm -rf "$scratch"' EXIT

# Name of a row, and what the name of the function ends with whose inclusive count it is.
rows=(
    "put|instructions::measured_puts"
    "get from the delta|instructions::measured_gets_from_the_delta"
    "get from the cache|instructions::measured_gets_from_the_cache"
    "get from the table|instructions::measured_gets_from_the_table"
    "cut|instructions::measured_cut"
    "seal|instructions::measured_seal"
    "merge|instructions::measured_merge"
    "apply|instructions::measured_apply"
)

# The processor's maker, and those of its abilities by which copies, checksums and hashes choose their loops.
processor() {
    awk -F': *' '
        /^vendor_id/ { vendor = $2 }
        /^flags/ {
            count = split("avx2 avx512vl bmi2 erms fsrm pclmulqdq sse4_2", wanted, " ")
            split($2, flags, " ")
            for (flag in flags) has[flags[flag]] = 1
            for (i = 1; i <= count; i++) if (wanted[i] in has) found = found " " wanted[i]
            print vendor found
            exit
        }' /proc/cpuinfo 2>/dev/null || true
}
built_with="$(rustc --version | cut -d' ' -f1-2), $(cc --version | head -n 1), $(uname -m), $(processor)"

# Prints name and count of each row.
count() {
    with_heartbeat valgrind --tool=callgrind --callgrind-out-file="$scratch/$2" "$1" >"$scratch/$2.log" 2>&1 || {
        cat "$scratch/$2.log" >&2
        return 1
    }
    callgrind_annotate --inclusive=yes --threshold=100 "$scratch/$2" >"$scratch/$2.txt" 2>"$scratch/$2.err"
    local row found
    for row in "${rows[@]}"; do
        # The largest, where a function stands there once for each file that was inlined into it.
        found=$(grep -E "${row#*|}([^[:alnum:]_]|\$)" "$scratch/$2.txt" |
            awk '{ gsub(/,/, "", $1); print $1 }' | sort -n | tail -n 1) || true
        [ -n "$found" ] || { echo "instructions: $1 has no function ${row#*|}" >&2; return 1; }
        printf '%s\t%s\n' "${row%%|*}" "$found"
    done
}

say "Counting"
count "$new" new >"$scratch/new.counts"
if [ $mode = write ]; then
    {
        echo "# Instructions of benches/instructions.rs in the dev profile; written by scripts/instructions.sh --write"
        echo "# $built_with"
        cat "$scratch/new.counts"
    } >"$recorded"
    cat "$recorded"
    exit 0
fi
same=1
if [ -n "$old" ]; then
    count "$old" old >"$scratch/old.counts"
else
    grep -v '^#' "$recorded" >"$scratch/old.counts"
    grep -qxF "# $built_with" "$recorded" || same=
fi
printf '%-24s %15s %15s %8s\n' '' before now ratio
awk -F'\t' -v tolerance=$tolerance '
    NR == FNR { before[$1] = $2; next }
    !($1 in before) { printf "%-24s %15s %15.0f  not counted before\n", $1, "", $2; wrong = 1; next }
    {
        ratio = $2 / before[$1]
        far = ratio > 1 + tolerance / 100 || ratio < 1 - tolerance / 100
        wrong = wrong || far
        printf "%-24s %15.0f %15.0f %8.3f%s\n", $1, before[$1], $2, ratio, far ? "  differs" : ""
    }
    END { exit wrong }' "$scratch/old.counts" "$scratch/new.counts" && exit 0
[ $mode = check ] || exit 0
if [ -z "$same" ]; then
    echo "instructions: not compared: $recorded was written with other compilers than $built_with"
    exit 0
fi
echo "instructions: a count is more than $tolerance % from $recorded; if that is meant: scripts/instructions.sh --write" >&2
exit 1
