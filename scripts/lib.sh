# Shared by the scripts beside it; to be sourced, not run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
# A fresh rustup is not in the PATH of shells that were open before it, nor in that of some CI runners.
PATH=$PATH:${CARGO_HOME:-${HOME:-}/.cargo}/bin
heartbeat=

say() { printf '\n== %s\n' "$*"; }

# What the scripts build and run programs with, see provide_rocksdb.
# shellcheck disable=SC2034 # used by those that source this
profile=release
programs=$target/release

# How far cargo's own compilation of RocksDB is, or nothing. Cargo itself shows one long step.
rocksdb_progress() {
    local out version list compiled total
    [ -z "${ROCKSDB_LIB_DIR:-}" ] || return 0
    # The newest one: older builds may lie beside it.
    # shellcheck disable=SC2012 # cargo's names are plain
    out=$(ls -td "$target"/debug/build/librocksdb-sys-*/out 2>/dev/null | head -n 1)
    [ -n "$out" ] && [ ! -e "$out/librocksdb.a" ] || return 0
    version=$(awk '/^name = "librocksdb-sys"/ { getline; gsub(/"/, ""); print $3; exit }' "$root/Cargo.lock")
    # shellcheck disable=SC2012
    list=$(ls "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"librocksdb-sys-$version/rocksdb_lib_sources.txt" 2>/dev/null | head -n 1)
    compiled=$(find "$out" -name '*.o' | wc -l)
    total=$([ -n "$list" ] && wc -l <"$list")
    printf 'compiling RocksDB: %d%s files, ' "$compiled" "${total:+ of $((total))}"
}

# Runs a command and says every 30 s that it is still at work, so that neither a person nor a CI
# runner takes the 10 to 16 minutes of RocksDB for a hang.
with_heartbeat() {
    local status=0
    (
        start=$SECONDS
        while sleep 30 >/dev/null 2>&1; do
            elapsed=$((SECONDS - start))
            printf '   ... %s%d min %02d s so far\n' "$(rocksdb_progress)" $((elapsed / 60)) $((elapsed % 60))
        done
    ) &
    heartbeat=$!
    disown # the shell need not report its end
    "$@" || status=$?
    stop_heartbeat
    return "$status"
}

stop_heartbeat() {
    [ -n "$heartbeat" ] || return 0
    kill "$heartbeat" 2>/dev/null || true
    heartbeat=
}
trap stop_heartbeat EXIT

# Points cargo at the RocksDB that is compiled once for this machine. Where that cannot
# be, cargo compiles it, and everything is built in the one profile `dev`, so that it does so once.
provide_rocksdb() {
    local library status=0
    library=$("$root/scripts/rocksdb.sh") || status=$?
    case $status in
    0)
        export ROCKSDB_LIB_DIR=$library ROCKSDB_STATIC=1
        return
        ;;
    3) ;;
    4) return 0 ;; # the user's own
    *) return "$status" ;;
    esac
    # shellcheck disable=SC2034
    profile=dev
    # shellcheck disable=SC2034
    programs=$target/debug
    # What an earlier run has set must not point to a library that is not there.
    if [ -n "${ROCKSDB_LIB_DIR:-}" ] || [ -e "$root/.cargo/config.toml" ]; then
        export ROCKSDB_COMPILE=1
        unset ROCKSDB_LIB_DIR
    fi
    ls "$target"/debug/build/librocksdb-sys-*/out/librocksdb.a >/dev/null 2>&1 ||
        say "First build: cargo compiles RocksDB from source, in 10 to 16 minutes on 2 cores"
}
