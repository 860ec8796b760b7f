#!/bin/sh
# Checks for what the build, the tests and the demo need, and installs what is missing where that
# is possible: with apt-get as root or with sudo that asks for no password. Silent and quick when
# all is there. Everything else comes through cargo (crates) and Maven (servers) when needed.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'deps: %s\n' "$*" >&2; }

has() { command -v "$1" >/dev/null 2>&1; }

# One line per thing that is missing, and the Debian packages that bring it.
missing=
packages=
need() { # need "what it is" package...
    missing="$missing
  - $1"
    shift
    packages="$packages $*"
}

compiles_c() { printf '#include <stdlib.h>\n' | cc -E - >/dev/null 2>&1; }

# The major version of the JVM, read from a file beside it: to ask it takes longer than all the
# rest of this script.
java_version() {
    java=java
    [ -z "${JAVA_HOME:-}" ] || java=$JAVA_HOME/bin/java
    java=$(command -v "$java") || return 0
    release=$(dirname "$(readlink -f "$java")")/../release
    if [ -r "$release" ]; then
        sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$release"
    else
        "$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p'
    fi
}

compiles_c || need "a C compiler with libc's headers, for librdkafka, zstd and OpenSSL" gcc libc6-dev
has make || need "make" make
# The perl-base of a minimal Debian lacks the modules that OpenSSL's Configure uses.
perl -MIPC::Cmd -MFindBin -MFile::Compare -e 1 2>/dev/null || need "Perl with its modules, for OpenSSL" perl
has bash || need "bash, for librdkafka's configure" bash
has mvn || need "Maven, which fetches the servers" maven
version=$(java_version)
if [ "${version:-0}" -lt 17 ]; then
    need "a Java runtime, 17 or newer, for Kafka and the registry" default-jre-headless
fi
python3 -c 'import ensurepip, venv' 2>/dev/null ||
    need "Python 3 with venv, for the test with Confluent's deserialiser" python3-venv
has node && has npm || need "Node and npm, which drive a browser" nodejs npm
has chromium || has chromium-browser || has google-chrome ||
    need "Chromium, in which the status page is looked at" chromium fonts-dejavu-core
has tmux || need "tmux, a terminal that a test can look at" tmux
has tar || need "tar" tar
has xz || need "xz, to unpack Postgres" xz-utils
if [ "$(id -u)" = 0 ] && [ "$(uname -s)" = Linux ]; then
    has setpriv || need "setpriv, to run Postgres as nobody" util-linux
fi

install() {
    if ! has apt-get; then
        return 1
    elif [ "$(id -u)" = 0 ]; then
        sudo=
    elif has sudo && sudo -n true 2>/dev/null; then
        sudo="sudo -n"
    else
        return 1
    fi
    say "installing with apt-get:$packages"
    # shellcheck disable=SC2086 # both are lists of words
    $sudo apt-get update -q >&2 </dev/null &&
        $sudo env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends $packages >&2 </dev/null
}

if [ -n "$missing" ]; then
    say "missing:$missing"
    # A second look after an installation that changed nothing, such as of an older Java.
    if [ "${1:-}" != --installed ] && install; then
        exec scripts/deps.sh --installed
    else
        say "please install the above. On Debian or Ubuntu:"
        say "  sudo apt-get install --no-install-recommends$packages"
        exit 1
    fi
fi

# Rust itself is the one thing that is never installed from here.
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
if ! has cargo || ! found=$(rustc --version 2>/dev/null); then
    say "no Rust toolchain: install $wanted or newer, for instance with rustup"
    exit 1
fi
found=${found#rustc }
found=${found%%[ -]*}
newer() { # newer A B: whether A is at least B, both major.minor[.patch]
    a=${1#*.} b=${2#*.}
    [ "${1%%.*}" -gt "${2%%.*}" ] ||
        { [ "${1%%.*}" -eq "${2%%.*}" ] && [ "${a%%.*}" -ge "${b%%.*}" ]; }
}
if ! newer "$found" "$wanted"; then
    say "Rust $found is too old: $wanted or newer is needed (rustup update stable)"
    exit 1
fi

# Where rustup is, its proxies exist whether the components do or not: look behind them.
sysroot=$(rustc --print sysroot)
components=
[ -x "$sysroot/bin/cargo-clippy" ] || components="$components clippy"
[ -x "$sysroot/bin/rustfmt" ] || components="$components rustfmt"
if [ -n "$components" ]; then
    if has rustup; then
        say "adding to the Rust toolchain:$components"
        # shellcheck disable=SC2086 # a list of words
        rustup component add $components >&2
    else
        say "the Rust toolchain in $sysroot lacks:$components; install them beside it"
        exit 1
    fi
fi
