#!/usr/bin/env bash
# The packages that would be published: they hold what they need and nothing else, and they compile as a
# user gets them, away from this repository. Nothing is published.
#   scripts/package.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

fail() {
    printf 'package: %s\n' "$@" >&2
    exit 1
}

# What each package may hold, as extended regular expressions of whole names. Cargo adds the first three.
by_cargo='\.cargo_vcs_info\.json|Cargo\.lock|Cargo\.toml\.orig'
common="$by_cargo|Cargo\.toml|LICENSE|README\.md"
declare -A allowed=(
    [alluvium]="$common|CHANGELOG\.md|docs/(embedding|quickstart)\.md|src/[a-z0-9_/]+\.rs"
    [alluvium-supervisor]="$common|src/[a-z0-9_/]+\.rs"
    [alluvium-cli]="$common|scenarios/[a-z-]+\.toml|src/[a-z0-9_/]+\.(rs|css|html|js)|src/report/vendor/uplot/(LICENSE|uPlot\.(iife\.)?min\.(css|js))"
)
declare -A needed=(
    [alluvium]="LICENSE README.md CHANGELOG.md src/lib.rs"
    [alluvium-supervisor]="LICENSE README.md src/lib.rs"
    [alluvium-cli]="LICENSE README.md src/main.rs src/report/vendor/uplot/LICENSE"
)

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
packed=$target/package
unpacked=$target/unpacked

# Cargo before 1.90 cannot pack a package together with another one that it depends on.
if [ "$(cargo --version | awk '{ split($2, v, "."); print v[1] * 1000 + v[2] }')" -lt 1090 ]; then
    say "Packages: not checked, this needs cargo 1.90 or later"
    exit
fi

check_files() {
    local package=$1 list file
    list=$(tar tzf "$packed/$package-$version.crate" | sed "s|^$package-$version/||")
    for file in ${needed[$package]}; do
        grep -qxF "$file" <<<"$list" || fail "$file is missing in $package"
    done
    ! grep -vxE "${allowed[$package]}" <<<"$list" ||
        fail "$package should not hold these; see \`include\` in its Cargo.toml, or \`allowed\` in $0"
    printf '   %s: %d files, %d kB\n' "$package" "$(wc -l <<<"$list")" \
        $(($(wc -c <"$packed/$package-$version.crate") / 1000))
}

# As a user gets it: alone, without the repository around it.
compile() {
    local package=$1
    shift
    tar xzf "$packed/$package-$version.crate" -C "$unpacked"
    ! grep -n testkit "$unpacked/$package-$version/Cargo.toml" || fail "$package asks for a package that is not published"
    # Without this line cargo would look for its workspace, and find ours.
    printf '\n[workspace]\n' >>"$unpacked/$package-$version/Cargo.toml"
    (cd "$unpacked/$package-$version" && with_heartbeat cargo check --quiet --target-dir "$target" "$@")
}

say "Packages"
cargo package --quiet --locked --no-verify --allow-dirty -p alluvium -p alluvium-supervisor -p alluvium-cli
check_files alluvium
check_files alluvium-supervisor
check_files alluvium-cli
provide_rocksdb
rm -rf "$unpacked"
mkdir -p "$unpacked"
compile alluvium --locked
compile alluvium-supervisor --locked
compile alluvium-cli --config "patch.crates-io.alluvium.path = '$unpacked/alluvium-$version'" \
    --config "patch.crates-io.alluvium-supervisor.path = '$unpacked/alluvium-supervisor-$version'"
rm -rf "$unpacked"
