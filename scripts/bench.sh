#!/usr/bin/env bash
# The micro-benchmarks, on a release build. Options are passed on, for example:
#   scripts/bench.sh --bench delta
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

"$root/scripts/setup.sh"
provide_rocksdb
# Only criterion's targets: the unit tests' harness would refuse its options.
case " $* " in
*" --bench"*) ;;
*) set -- --bench '*' "$@" ;;
esac
with_heartbeat cargo bench --locked --profile "$profile" --all-features "$@"
