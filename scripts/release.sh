#!/usr/bin/env bash
# Makes what a release consists of, in target/release-files: the binary with its licences, the unit of
# systemd, the bill of materials, a package for Debian, and checksums.
#
#   scripts/release.sh 0.1.0
#
# The same commit, compiler and system make the same bytes (scripts/build-release.sh says how).
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:?scripts/release.sh VERSION}
grep -qx "version = \"$version\"" Cargo.toml || {
    echo "release: Cargo.toml says another version than $version" >&2
    exit 1
}
[ -z "$(git status --porcelain)" ] || {
    echo "release: there are changes that are not committed" >&2
    exit 1
}
notes=$(awk -v version="$version" '/^## /{on = index($0, "## " version) == 1} on' CHANGELOG.md)
[ -n "$notes" ] || {
    echo "release: CHANGELOG.md has no section \"## $version\"" >&2
    exit 1
}

WALTIDE_VERSION="$version ($(git rev-parse --short HEAD))"
export WALTIDE_VERSION
scripts/build-release.sh

out=target/release-files
name=waltide-$version-$(uname -m)-linux
rm -rf "$out"
mkdir -p "$out/$name"
printf '%s\n' "$notes" >"$out/NOTES.md"
scripts/sbom.py "$out/$name"
install -m 0755 target/release/waltide "$out/$name/"
install -m 0644 LICENSE README.md CHANGELOG.md deploy/systemd/waltide.service "$out/$name/"
cp "$out/$name/waltide.cdx.json" "$out/$name.cdx.json"
# Order, times and owners are the commit's, not this machine's.
tar --create --directory "$out" --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$(git log -1 --format=%ct)" "$name" | gzip --no-name --best >"$out/$name.tar.gz"
rm -r "${out:?}/$name"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) scripts/deb.sh target/release/waltide "$version" "$out"
(cd "$out" && sha256sum waltide-*.tar.gz waltide-*.json waltide_*.deb >"$name.sha256")
ls -l "$out"
