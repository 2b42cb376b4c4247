#!/usr/bin/env bash
# Sets up, builds, and runs one workload in all checkpoint modes on a temporary local directory.
# Options are passed on to `alluvium compare`, for example: scripts/demo.sh --operation append
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

"$root/scripts/setup.sh"
provide_rocksdb
with_heartbeat cargo build --locked --profile "$profile" --all-features --bins

work=$(mktemp -d "${TMPDIR:-/tmp}/alluvium-demo.XXXXXX")
trap 'stop_heartbeat; rm -rf "$work"' EXIT

say "The same work with log-based checkpoints, with RocksDB's own, and with none: a minute and a half"
"$programs/alluvium" compare "$work/store" --temp-dir "$work/local" --duration 15s --steady 10s "$@"
