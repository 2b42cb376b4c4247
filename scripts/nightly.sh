#!/usr/bin/env bash
# The long forms, for a machine that has an hour or two: the tests that are ignored elsewhere (the model check of
# the protocol with its larger bounds, memory at up to 256 subtasks and 4 GB), and many more seeds of the random
# models.
#
#   scripts/nightly.sh [--seeds N]
#
# --seeds N   random histories of each model (default 300)
#
# It needs about 10 GB of memory and 30 GB of disk below TMPDIR.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

seeds=300
while [ $# -gt 0 ]; do
    case $1 in
    --seeds) seeds=${2:?--seeds needs a number}; shift 2 ;;
    *) echo "nightly: unknown option $1; see the head of $0" >&2; exit 2 ;;
    esac
done

"$root/scripts/setup.sh"
provide_rocksdb
say "Build"
with_heartbeat cargo test --locked --all-features --no-run

# One failure must not hide what the others would have said.
failed=()
long_form() {
    say "$1"
    shift
    with_heartbeat cargo test --locked --all-features "$@" || failed+=("cargo test $*")
}

# One at a time: memory is that of a process of its own, beside which no other should take any.
long_form "Tests that are ignored elsewhere" --tests -- --ignored --nocapture --test-threads 1
export ALLUVIUM_SEEDS=$seeds
for model in i1_model i1_state_model i9_rescale scans; do
    # A filter that no test's name matches would pass.
    found=$(cargo test --quiet --locked --all-features --test all -- --list "$model::" | grep -c ': test$') || true
    [ "${found:-0}" -gt 0 ] || failed+=("there are no tests $model::")
    long_form "$seeds seeds of $model" --test all -- "$model::"
done

for model in store::cache_tests job::process_tests::lossy; do
    found=$(cargo test --quiet --locked --all-features --lib -- --list "$model::" | grep -c ': test$') || true
    [ "${found:-0}" -gt 0 ] || failed+=("there are no tests $model::")
    long_form "$seeds seeds of $model" --lib -- "$model::"
done

if [ ${#failed[@]} -gt 0 ]; then
    printf 'nightly: failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
say "All long forms passed"
