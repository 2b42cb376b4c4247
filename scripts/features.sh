#!/usr/bin/env bash
# Every set of features that somebody may ask for compiles without a warning: none, each one alone, all
# stores without the rest, and what tests and benches need without any of them. Only clippy looks at the
# code; nothing is linked or run.
#   scripts/features.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# The features that a package declares, without `default`.
features_of() {
    awk '/^\[/ { inside = $0 == "[features]" }
        inside && /^[a-z][a-z-]* *=/ && $1 != "default" { print $1 }' "$1"
}

check() {
    printf '   cargo clippy %s\n' "$*"
    with_heartbeat cargo clippy --locked --quiet "$@" -- -D warnings
}

provide_rocksdb
say "Features of the library"
# Alone, because in a workspace the command line would turn on `test-util`.
mapfile -t features < <(features_of Cargo.toml)
[ "${#features[@]}" -ge 4 ] || { echo "features: Cargo.toml is written in an unknown way" >&2; exit 1; }
check -p alluvium --lib --no-default-features
for feature in "${features[@]}"; do
    check -p alluvium --lib --no-default-features --features "$feature"
done
# Tests and benches take no feature for granted that they do not name in Cargo.toml.
check -p alluvium --all-targets --no-default-features

say "Features of the command line"
mapfile -t features < <(features_of crates/alluvium-cli/Cargo.toml)
check -p alluvium-cli --bins --no-default-features
for feature in "${features[@]}"; do
    check -p alluvium-cli --bins --no-default-features --features "$feature"
done
