#!/usr/bin/env bash
# The micro-benchmarks, on a release build. Options are passed on, for example:
#   scripts/bench.sh --bench delta
# or the table of targets, from runs of all modes in turns, with pass or short for each row: some hours.
#   scripts/bench.sh --table [--runs N] [--quick] [--before BINARY] [--only LOADS] [--out DIR] [--resume]
# --help after --table says what these are. BINARY=path measures that program instead of building one.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

table=
if [ "${1:-}" = --table ]; then
    table=yes
    shift
fi
if [ -z "$table" ] || [ -z "${BINARY:-}" ]; then
    "$root/scripts/setup.sh"
    provide_rocksdb
fi
if [ -n "$table" ]; then
    if [ -z "${BINARY:-}" ]; then
        with_heartbeat cargo build --locked --profile "$profile" --all-features --bins
        BINARY=$programs/alluvium
    fi
    case " $* " in
    *" --out"* | *" --help "*) ;;
    *" --quick "*) set -- --out "$target/table-quick" "$@" ;;
    *) set -- --out "$target/table" "$@" ;;
    esac
    exec "$BINARY" targets "$@"
fi
# Only criterion's targets: the unit tests' harness would refuse its options.
case " $* " in
*" --bench"*) ;;
*) set -- --bench '*' "$@" ;;
esac
with_heartbeat cargo bench --locked --profile "$profile" --all-features "$@"
