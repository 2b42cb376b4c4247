#!/usr/bin/env bash
# Compares the library's public API with an earlier one, and fails if the version in Cargo.toml does not
# allow the difference. Needs cargo-semver-checks: cargo install --locked cargo-semver-checks
#
#   scripts/semver.sh         against the newest release: the newest tag v*
#   scripts/semver.sh REV     against any revision of this repository
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

baseline=${1:-$(git tag --list 'v[0-9]*' --sort=-version:refname | head -n 1)}
if [ -z "$baseline" ]; then
    say "Public API: there is no release to compare it with yet"
    exit
fi
cargo semver-checks --version >/dev/null 2>&1 || {
    echo "semver: cargo-semver-checks is missing; install it with: cargo install --locked cargo-semver-checks" >&2
    exit 1
}
provide_rocksdb
say "Public API compared with $baseline"
with_heartbeat cargo semver-checks --package alluvium --all-features --baseline-rev "$baseline"
