#!/usr/bin/env bash
# All checks: formatting, what deploy/ has, clippy with warnings as errors, all tests and doc tests, documentation.
# One profile (dev) and one feature set (all) throughout, so that dependencies are compiled once.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

"$root/scripts/setup.sh" --browser
for component in rustfmt clippy; do
    cargo "${component/rust/}" --version >/dev/null 2>&1 && continue
    rustup component add "$component" || {
        echo "test: $component is missing; install it with: rustup component add $component" >&2
        exit 1
    }
done

say "Formatting"
cargo fmt --all --check

"$root/scripts/deploy.sh"

provide_rocksdb
say "Clippy"
with_heartbeat cargo clippy --locked --all-features --all-targets -- -D warnings

say "Tests"
# Unit and integration tests and doc tests; builds the examples too, which tests/flights.rs runs.
with_heartbeat cargo test --locked --all-features

say "Documentation"
RUSTDOCFLAGS="-D warnings" with_heartbeat cargo doc --locked --all-features --no-deps --lib
RUSTDOCFLAGS="-D warnings" with_heartbeat cargo doc --locked --all-features --no-deps --lib --document-private-items

say "All checks passed"
