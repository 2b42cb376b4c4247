#!/usr/bin/env bash
# RocksDB, compiled once for each user and machine instead of once for each profile, feature set and
# clone. The library lies in ${XDG_CACHE_HOME:-~/.cache}/alluvium/rocksdb/KEY, and is compiled by
# rocksdb-build.sh if it is not there or if its checksum is wrong.
#
#   scripts/rocksdb.sh                   prints the library's folder
#   eval "$(scripts/rocksdb.sh --env)"   lets plain cargo use it, in this shell
#   scripts/rocksdb.sh --configure       lets plain cargo and editors use it, in this clone: writes
#                                        .cargo/config.toml, which git ignores
#   scripts/rocksdb.sh --unconfigure     takes that file away
#
# Ends with 3, and says why, where no library can be had this way: cargo then compiles RocksDB itself.
# Ends with 4 if ROCKSDB_LIB_DIR names a library of the user's own.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
config=$root/.cargo/config.toml
config_head="# Written by scripts/rocksdb.sh --configure; scripts/rocksdb.sh --unconfigure takes it away."

# build.rs of librocksdb-sys that the flags below were taken from.
known_build_rs=2dbb97b102a2c13f0192ee75a49d4fc0f84fa0692ac9ffc84d364a7a28b472a3
known_features=bindgen-runtime,lz4,lz4-sys,static,zstd,zstd-sys

# The messages go to the terminal, the answer to the caller.
tell() { printf '%s\n' "$*" >&2; }

unavailable() {
    tell "rocksdb: no library of our own: $*; cargo compiles RocksDB itself"
    exit 3
}

# Whoever names a library, or wants none, has it so.
respect_choice() {
    [ -z "${ROCKSDB_COMPILE:-}" ] || unavailable "ROCKSDB_COMPILE is set"
    case ${ROCKSDB_LIB_DIR:-$cache/} in
    "$cache"/*) ;;
    *)
        tell "rocksdb: cargo links ROCKSDB_LIB_DIR=$ROCKSDB_LIB_DIR"
        exit 4
        ;;
    esac
}

check_tools() {
    local tool
    [ "$(uname -s)" = Linux ] || unavailable "this is done on Linux only"
    [ "${BASH_VERSINFO[0]}${BASH_VERSINFO[1]}" -ge 44 ] || unavailable "bash 4.4 or later is needed"
    for tool in cargo rustc "$cxx" ar awk flock nproc sha256sum sync; do
        command -v "$tool" >/dev/null || unavailable "$tool is missing"
    done
}

# locked PACKAGE FIELD: from Cargo.lock.
locked() {
    awk -v package="\"$1\"" -v field="$2" '
        $1 == "name" { found = $3 == package }
        found && $1 == field { gsub(/"/, "", $3); print $3; exit }' Cargo.lock
}

# What is compiled in depends on features, and those of librocksdb-sys are the union of what all
# packages ask for.
check_features() {
    local features
    features=$(cargo tree --locked --all-features --edges normal --invert librocksdb-sys --depth 0 --format '{f}' |
        head -n 1) || unavailable "cargo tree failed, see above"
    [ "$features" = "$known_features" ] ||
        unavailable "librocksdb-sys has the features $features, scripts/rocksdb.sh knows $known_features"
}

# Flags as build.rs of librocksdb-sys and the crate `cc` choose them for Linux in an optimised profile.
# Warnings are left out.
choose_flags() {
    local cpu features
    # As cargo: words apart by blanks.
    read -r -a rust_flags <<<"${RUSTFLAGS:-}"
    cpu=$(sed -n 's/.*-C *target-cpu=\([^ ]*\).*/\1/p' <<<"${RUSTFLAGS:-}")
    features=$(rustc "${rust_flags[@]}" --print cfg | sed -n 's/^target_feature="\(.*\)"/\1/p') ||
        unavailable "rustc does not take RUSTFLAGS=${RUSTFLAGS:-}"
    has() { grep -qx "$1" <<<"$features"; }

    flags=(-O3 -ffunction-sections -fdata-sections -fPIC)
    case $target in
    x86_64-unknown-linux-gnu)
        flags+=(-m64 "-march=${cpu:-x86-64}")
        has sse2 && flags+=(-msse2)
        has sse4.1 && flags+=(-msse4.1)
        has sse4.2 && flags+=(-msse4.2)
        has avx2 && flags+=(-mavx2)
        has bmi1 && flags+=(-mbmi)
        has lzcnt && flags+=(-mlzcnt)
        has pclmulqdq && flags+=(-mpclmul)
        ;;
    aarch64-unknown-linux-gnu)
        if [ -n "$cpu" ]; then
            flags+=("-mcpu=$cpu")
        elif has crc && has aes; then
            flags+=(-march=armv8-a+crc+aes+crypto)
        fi
        ;;
    *) unavailable "not done for $target" ;;
    esac
    flags+=("-std=c++20" -w -include cstdint -DLZ4=1 -DZSTD=1 -DNDEBUG=1 -DHAVE_ALIGNED_NEW
        -DHAVE_UINT128_EXTENSION -DOS_LINUX -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX
        -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT
        -DROCKSDB_RANGESYNC_PRESENT)
    read -r -a cxx_flags <<<"${CXXFLAGS:-}"
    flags+=("${cxx_flags[@]}")
}

# All that the library depends on, one a line.
describe() {
    local package checksum
    for package in librocksdb-sys lz4-sys zstd-sys; do
        checksum=$(locked "$package" checksum)
        [ -n "$checksum" ] || unavailable "Cargo.lock has no checksum of $package"
        echo "$package $(locked "$package" version) $checksum"
    done
    echo "target $target"
    echo "compiler $("$cxx" --version | head -n 1)"
    echo "libc $(getconf GNU_LIBC_VERSION 2>/dev/null || echo unknown)"
    echo "flags ${flags[*]}"
    echo "builder $(cat "$root"/scripts/rocksdb.sh "$root"/scripts/rocksdb-build.sh "$root"/scripts/rocksdb-smoke.cc |
        sha256sum | cut -c1-64)"
}

# A library is used only if it is whole and made of the same things.
is_good() {
    [ -f "$1/SHA256SUMS" ] && [ "$(cat "$1/INPUTS" 2>/dev/null)" = "$inputs" ] &&
        [ "$(cd "$1" && sha256sum librocksdb.a INPUTS 2>/dev/null)" = "$(cat "$1/SHA256SUMS")" ]
}

# Compiles the library unless another process has done so while this one waited for the lock.
provide() {
    mkdir -p "$cache" 2>/dev/null || unavailable "$cache cannot be made"
    [ -w "$cache" ] || unavailable "$cache cannot be written"
    exec 9>"$cache/$key.lock"
    flock -n 9 || {
        tell "rocksdb: another process compiles the same library; waiting for it"
        flock 9
    }
    is_good "$library" && return
    if [ -e "$library" ]; then
        tell "rocksdb: $library is damaged; it is compiled again"
        rm -rf "$library"
    fi
    INPUTS=$inputs CXX=$cxx "$root/scripts/rocksdb-build.sh" "$library" "$known_build_rs" "${flags[@]}" 9>&- >&2 ||
        unavailable "it could not be compiled, see above"
    is_good "$library" || unavailable "$library is not what was just written; is the disk in order?"
}

write_config() {
    if [ -e "$config" ] && [ "$(head -n 1 "$config")" != "$config_head" ]; then
        tell "rocksdb: $config is not by this script; add to it:"
        printf '[env]\nROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"\n' "$library" >&2
        exit 1
    fi
    mkdir -p "$root/.cargo"
    printf '%s\n[env]\nROCKSDB_LIB_DIR = "%s"\nROCKSDB_STATIC = "1"\n' "$config_head" "$library" >"$config.new"
    mv "$config.new" "$config"
}

is_configured() { [ -e "$config" ] && [ "$(head -n 1 "$config")" = "$config_head" ]; }

case "${1:-}" in
"" | --env | --configure) ;;
--unconfigure)
    is_configured && rm "$config"
    exit 0
    ;;
*) tell "rocksdb: unknown option $1; see the head of $0"; exit 2 ;;
esac

cxx=${CXX:-c++}
[ -n "${XDG_CACHE_HOME:-${HOME:-}}" ] || unavailable "neither XDG_CACHE_HOME nor HOME is set"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/alluvium/rocksdb
respect_choice
check_tools
target=$(rustc -vV | sed -n 's/^host: //p')
[ "${CARGO_BUILD_TARGET:-$target}" = "$target" ] || unavailable "CARGO_BUILD_TARGET asks for another machine"
check_features
choose_flags
inputs=$(describe) || exit 3
key=$(locked librocksdb-sys version | sed 's/.*+//')-$target-$(sha256sum <<<"$inputs" | cut -c1-16)
library=$cache/$key
is_good "$library" || provide

# A configuration of an older version must not stay: cargo would link that version's library.
if [ "${1:-}" = --configure ] || { is_configured && ! grep -qF "\"$library\"" "$config"; }; then
    write_config
    tell "rocksdb: $config points cargo at $library"
fi
case "${1:-}" in
"") echo "$library" ;;
--env) printf 'export ROCKSDB_LIB_DIR=%q ROCKSDB_STATIC=1\n' "$library" ;;
esac
