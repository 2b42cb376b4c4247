#!/usr/bin/env bash
# Checks what the build needs, and installs what is missing where it can (Debian and Ubuntu, as root
# or by sudo): a C and a C++ compiler, and libclang, which generates the bindings to RocksDB. May be run any
# number of times; does nothing when all is there.
#   --browser   also a Chromium, for the test that looks at the report's page. Without one that test is
#               skipped, so that this is not a failure.
#   --valgrind  also valgrind, to compare counts of instructions. Without it they are not compared.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# "1.89.0" and "1.100" in an order that can be compared.
number() { awk -F. '{ print $1 * 1000 + $2 }' <<<"$1"; }

check_rust() {
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
    if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
        fail "Rust is missing; install version $needed or later as https://rustup.rs describes"
    fi
    found=$(rustc --version | awk '{ print $2 }') || fail "rustc is there but does not run; see its message above"
    [ "$(number "$found")" -ge "$(number "$needed")" ] ||
        fail "Rust $found is too old, $needed or later is needed; run: rustup update stable"
}

# Compiles and links, because a compiler without its libraries is of no use.
builds() {
    command -v "$1" >/dev/null && "$1" -x "$2" - -o "$scratch/probe" <<<"$3" 2>"$scratch/$1.log"
}

# bindgen loads the shared library and reads clang's own headers, which belong to another package.
has_libclang() {
    local dir folders=()
    if [ -n "${LIBCLANG_PATH:-}" ]; then
        # The library itself or its directory; whoever set it knows the rest.
        compgen -G "$LIBCLANG_PATH*" >/dev/null || fail "LIBCLANG_PATH=$LIBCLANG_PATH does not exist; correct or unset it"
        return 0
    fi
    command -v llvm-config >/dev/null && folders+=("$(llvm-config --libdir)")
    folders+=(/usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib64/llvm*/lib64 /usr/lib /usr/local/lib
        /opt/homebrew/opt/llvm/lib /usr/local/opt/llvm/lib /Library/Developer/CommandLineTools/usr/lib)
    for dir in "${folders[@]}"; do
        if compgen -G "$dir/libclang[.-][!c]*" >/dev/null && has_clang_headers; then
            return 0
        fi
    done
    return 1
}

has_clang_headers() {
    local pattern
    for pattern in '/usr/lib*/llvm*/lib*/clang/*' '/usr/lib*/clang/*' '/usr/local/lib/clang/*' '/opt/homebrew/opt/llvm/lib/clang/*' \
        '/usr/local/opt/llvm/lib/clang/*' '/Library/Developer/CommandLineTools/usr/lib/clang/*'; do
        compgen -G "$pattern/include/stddef.h" >/dev/null && return 0
    done
    return 1
}

# Prints the Debian packages that are missing.
missing() {
    builds cc c 'int main(void) { return 0; }' || echo gcc libc6-dev
    builds c++ c++ '#include <string>
        int main() { return std::string("").size(); }' || echo g++
    has_libclang || echo libclang-dev
}

install() {
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        # Without a terminal nobody can type a password.
        command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; } || return 1
        sudo=(sudo)
    fi
    command -v apt-get >/dev/null || return 1
    say "Installing $*"
    "${sudo[@]}" apt-get update -q &&
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

explain() {
    printf 'setup: the build needs packages that are missing and could not be installed from here:\n' >&2
    printf '    Debian, Ubuntu: apt-get install %s\n' "$*" >&2
    printf '    Fedora:         dnf install gcc gcc-c++ clang-devel\n' >&2
    printf '    macOS:          xcode-select --install; brew install llvm\n' >&2
    printf 'A libclang in an unusual place is found by LIBCLANG_PATH=<its directory>.\n' >&2
    cat "$scratch"/*.log >&2 2>/dev/null || true
    exit 1
}

# The browsers that crates/alluvium-cli/tests/report_browser.rs and pictures.sh look for.
has_browser() {
    local name
    for name in "${ALLUVIUM_CHROMIUM:-chromium}" chromium chromium-browser google-chrome chrome; do
        command -v "$name" >/dev/null && return 0
    done
    return 1
}

browser='' valgrind=''
case "${1:-}" in
"") ;;
--browser) browser=1 ;;
--valgrind) valgrind=1 ;;
*) fail "unknown option $1; there are --browser and --valgrind" ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

check_rust
has_libclang || true # fails here, not in a subshell, if LIBCLANG_PATH is wrong
read -r -a packages <<<"$(missing | tr '\n' ' ')"
if [ "${#packages[@]}" -gt 0 ]; then
    install "${packages[@]}" || explain "${packages[@]}"
    [ -z "$(missing)" ] || explain "${packages[@]}"
fi
if [ -n "$browser" ] && ! has_browser; then
    install chromium fonts-dejavu-core && has_browser ||
        printf 'setup: no Chromium, and it could not be installed from here (Debian: apt-get install chromium): the browser test will be skipped\n' >&2
fi
if [ -n "$valgrind" ] && ! command -v valgrind >/dev/null; then
    install valgrind && command -v valgrind >/dev/null ||
        printf 'setup: no valgrind, and it could not be installed from here (Debian: apt-get install valgrind): instructions will not be compared\n' >&2
fi
printf 'setup: %s, %s, libclang: all there\n' "$(rustc --version | cut -d' ' -f1-2)" "$(cc --version | head -n 1)"
