#!/usr/bin/env bash
# Compiles RocksDB into a folder that appears whole or not at all. Called by rocksdb.sh, which holds a
# lock and has chosen the flags:
#   INPUTS=TEXT CXX=COMPILER scripts/rocksdb-build.sh FOLDER SHA256_OF_BUILD_RS FLAGS...
#
# RocksDB's files include the same headers over and over, so that one by one they take three times as
# long as in a dozen larger units. RocksDB's own Makefile has such a target (unity.a). A unit that
# does not compile is halved, down to single files.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

folder=$1
known_build_rs=$2
shift 2
flags=("$@")
units=12
# What is compiled stays here if the script is interrupted, and is taken up by the next run.
work=$folder.partial

fail() {
    printf 'rocksdb: %s\n' "$*"
    exit 1
}

# Where cargo has unpacked a package.
source_of() {
    sed -n "s|.*\"manifest_path\":\"\([^\"]*/$1-[^\"/]*\)/Cargo.toml\".*|\1|p" <<<"$metadata" | head -n 1
}

find_sources() {
    local metadata file
    # It downloads what is missing. One object a line, so that sed finds them.
    metadata=$(cargo metadata --locked --all-features --format-version 1 --filter-platform "$(rustc -vV | sed -n 's/^host: //p')" |
        sed 's/"manifest_path"/\n&/g') || fail "cargo metadata failed"
    rocksdb=$(source_of librocksdb-sys)
    lz4=$(source_of lz4-sys)/liblz4/lib
    zstd=$(source_of zstd-sys)/zstd/lib
    for file in "$rocksdb/rocksdb_lib_sources.txt" "$lz4/lz4.h" "$zstd/zstd.h"; do
        [ -f "$file" ] || fail "cargo unpacks packages in an unknown way: there is no $file"
    done
    [ "$(sha256sum <"$rocksdb/build.rs" | cut -c1-64)" = "$known_build_rs" ] ||
        fail "librocksdb-sys builds RocksDB in a new way: compare its build.rs with scripts/rocksdb.sh"
    includes=(-Irocksdb/include/ -Irocksdb/ -Irocksdb/third-party/gtest-1.8.1/fused-src/ "-I$lz4" "-I$zstd" -I.)
}

# Neighbours share most headers, so a unit is a stretch of the list, of a twelfth of all bytes.
# The largest units are listed first, so that no core waits for a late one at the end.
plan_units() {
    local file
    grep -v '^util/build_version\.cc$' "$rocksdb/rocksdb_lib_sources.txt" | tr -d '\r ' | grep . |
        while read -r file; do
            echo "$(wc -c <"$rocksdb/rocksdb/$file") $file"
        done >"$work/files"
    echo "$(wc -c <"$rocksdb/build_version.cc") build_version.cc" >>"$work/files"
    awk -v units="$units" -v work="$work" '
        NR == FNR { total += $1; next }
        FNR == 1 || (size > 0 && size + $1 / 2 > total / units) {
            unit = sprintf("unit%02d", ++count)
            size = 0
        }
        { size += $1; sizes[unit] = size; print $2 >(work "/" unit ".list") }
        END { for (unit in sizes) print sizes[unit], unit }' "$work/files" "$work/files" |
        sort -k1,1nr -k2 | awk '{ print $2 }' >"$work/units"
}

# The object is durable before it has its name, so that whatever has the name is whole.
compile() {
    local unit=$1 list=$work/$1.list lines
    [ -e "$work/$unit.o" ] && return
    if [ ! -e "$work/$unit.halved" ]; then
        sed 's/.*/#include "&"/' "$list" >"$work/$unit.cc"
        # In the package's folder, so that the names of files in RocksDB's log are as always.
        if (cd "$rocksdb" && "$CXX" "${flags[@]}" "${includes[@]}" -c "$work/$unit.cc" -o "$work/$unit.$$.tmp") >"$work/$unit.log" 2>&1; then
            sync "$work/$unit.$$.tmp"
            mv "$work/$unit.$$.tmp" "$work/$unit.o"
            return
        fi
        lines=$(wc -l <"$list")
        if [ "$lines" -eq 1 ]; then
            printf 'rocksdb: %s does not compile:\n' "$(cat "$list")"
            head -n 20 "$work/$unit.log"
            return 1
        fi
        printf '   ... the %d files of %s do not compile together; halving\n' "$lines" "$unit"
        head -n $((lines / 2)) "$list" >"$work/${unit}a.list"
        tail -n +$((lines / 2 + 1)) "$list" >"$work/${unit}b.list"
        touch "$work/$unit.halved"
    fi
    compile "${unit}a" && compile "${unit}b"
}

# gcc 12 takes up to 1.3 GB for a unit. More at once than memory holds would end in the kernel's kill.
jobs_at_once() {
    local cores memory limit unit_mb=1400
    cores=${CARGO_BUILD_JOBS:-$(nproc)}
    memory=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
    # A container's limit.
    limit=$(cat /sys/fs/cgroup/memory.max 2>/dev/null || true)
    case $limit in
    "" | *[!0-9]*) ;;
    *) [ "$((limit / 1048576))" -ge "$memory" ] || memory=$((limit / 1048576)) ;;
    esac
    awk -v cores="$cores" -v fit="$((memory / unit_mb))" 'BEGIN { n = fit < cores ? fit : cores; print n < 1 ? 1 : n }'
}

compile_all() {
    local at_once total done=0 running=0 unit
    at_once=$(jobs_at_once)
    total=$(wc -l <"$work/units")
    say "RocksDB $(basename "$folder" | cut -d- -f1) is compiled once for this machine: $total units, $at_once at a time, some 6 minutes on 2 cores"
    while read -r unit; do
        if [ "$running" -ge "$at_once" ]; then
            await_one
        fi
        compile "$unit" </dev/null &
        running=$((running + 1))
    done <"$work/units"
    while [ "$running" -gt 0 ]; do
        await_one
    done
}

await_one() {
    wait -n || fail "RocksDB does not compile"
    running=$((running - 1))
    done=$((done + 1))
    printf '   ... %d of %d units, %d min %02d s\n' "$done" "$total" $((SECONDS / 60)) $((SECONDS % 60))
}

archive() {
    rm -f "$work/librocksdb.a"
    ar crs "$work/librocksdb.a" "$work"/unit*.o || fail "ar failed"
}

# Every member links, and a database opens, writes, flushes, compacts and reads. lz4 and zstd are
# compiled by their own packages, so that here they are names without a body.
smoke_test() {
    nm -u "$work/librocksdb.a" | sed -n 's/^ *U \(\(LZ4\|ZSTD\|ZDICT\)[A-Za-z0-9_]*\)$/\1/p' | sort -u |
        sed 's/.*/extern "C" void &() { __builtin_trap(); }/' >"$work/stubs.cc"
    "$CXX" -std=c++20 -w -I"$rocksdb/rocksdb/include" -o "$work/smoke" "$root/scripts/rocksdb-smoke.cc" "$work/stubs.cc" \
        -Wl,--whole-archive "$work/librocksdb.a" -Wl,--no-whole-archive -pthread -ldl >"$work/smoke.log" 2>&1 ||
        fail "the library does not link: $(head -n 5 "$work/smoke.log")"
    rm -rf "$work/smoke.db"
    "$work/smoke" "$work/smoke.db" || fail "the library links but does not work"
}

# Written beside, made durable, and renamed as a whole.
publish() {
    local new=$folder.new
    rm -rf "$new"
    mkdir "$new"
    printf '%s\n' "$INPUTS" >"$new/INPUTS"
    cp "$work/librocksdb.a" "$new/librocksdb.a"
    (cd "$new" && sha256sum librocksdb.a INPUTS >SHA256SUMS)
    sync "$new"/* "$new"
    mv "$new" "$folder"
    sync "$(dirname "$folder")"
    rm -rf "$work"
}

# Bash reads a script as it goes; in a function it has read it all before it starts, so that a pull
# that replaces this file in the minutes that follow does no harm.
main() {
    trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
    mkdir -p "$work"
    rm -f "$work"/*.tmp
    find_sources
    plan_units
    compile_all
    archive
    smoke_test
    publish
    say "RocksDB is compiled: $folder"
    exit
}
main
