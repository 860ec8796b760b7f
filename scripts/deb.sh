#!/bin/sh
# Makes a Debian package of a binary that was built: the program, the unit of systemd, manuals and
# completions. Nothing is started by an installation, since nobody has said yet what to read.
#
#   scripts/deb.sh target/release/waltide 0.1.0 target/release-files
set -eu
cd "$(dirname "$0")/.."

binary=${1:?scripts/deb.sh BINARY VERSION DIRECTORY}
version=${2:?scripts/deb.sh BINARY VERSION DIRECTORY}
out=${3:?scripts/deb.sh BINARY VERSION DIRECTORY}
architecture=$(dpkg --print-architecture)
mkdir -p "$out"
tree=$(mktemp -d "$out/deb.XXXXXX")
trap 'rm -rf "$tree"' EXIT
chmod 0755 "$tree"

install -D -m 0755 "$binary" "$tree/usr/bin/waltide"
install -D -m 0640 examples/minimal.yaml "$tree/etc/waltide/waltide.yaml"
# The unit takes the password from here as root; the daemon is another user.
install -d -m 0700 "$tree/etc/waltide/secrets"
install -d -m 0755 "$tree/usr/lib/systemd/system"
sed -e 's|/usr/local/bin/|/usr/bin/|' -e '/^#   install /d' deploy/systemd/waltide.service \
    >"$tree/usr/lib/systemd/system/waltide.service"
# A user that exists only while it runs reads the configuration as a credential as well.
sed -i -e 's|^Environment=WALTIDE_CONFIG=.*|Environment=WALTIDE_CONFIG=%d/waltide.yaml|' \
    -e 's|^LoadCredential=source:.*|&\nLoadCredential=waltide.yaml:/etc/waltide/waltide.yaml|' \
    "$tree/usr/lib/systemd/system/waltide.service"
install -D -m 0644 LICENSE "$tree/usr/share/doc/waltide/copyright"
install -D -m 0644 CHANGELOG.md "$tree/usr/share/doc/waltide/changelog"
install -D -m 0644 docs/runbook.md "$tree/usr/share/doc/waltide/runbook.md"
install -d -m 0755 "$tree/usr/share/man/man1"
"$binary" man "$tree/usr/share/man/man1" >/dev/null
for shell in bash zsh fish; do
    case $shell in
    bash) file=usr/share/bash-completion/completions/waltide ;;
    zsh) file=usr/share/zsh/vendor-completions/_waltide ;;
    fish) file=usr/share/fish/vendor_completions.d/waltide.fish ;;
    esac
    install -d -m 0755 "$tree/$(dirname "$file")"
    "$binary" completions "$shell" >"$tree/$file"
done
find "$tree/usr/share" -type f -exec chmod 0644 {} +

libc=$(objdump -T "$binary" | sed -n 's/.*(GLIBC_\([0-9.]*\)).*/\1/p' | sort -V | tail -n 1)
mkdir "$tree/DEBIAN"
printf '/etc/waltide/waltide.yaml\n' >"$tree/DEBIAN/conffiles"
cat >"$tree/DEBIAN/control" <<CONTROL
Package: waltide
Version: $version
Architecture: $architecture
Maintainer: Waltide <https://github.com/waltide/waltide>
Depends: libc6 (>= ${libc:?no version of libc is asked for}), libgcc-s1
Recommends: ca-certificates
Suggests: postgresql
Section: database
Priority: optional
Homepage: https://github.com/waltide/waltide
Installed-Size: $(du -sk --exclude=DEBIAN "$tree" | cut -f1)
Description: change data capture from PostgreSQL to Kafka
 A daemon that carries every committed change of captured tables to Kafka as
 Avro with registered schemas, and lets Postgres go on only when it is there.
CONTROL
cat >"$tree/DEBIAN/postinst" <<'POSTINST'
#!/bin/sh
set -e
# It is enabled and started by whoever has written its configuration; one that runs is restarted.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    systemctl try-restart waltide.service || true
fi
POSTINST
cat >"$tree/DEBIAN/prerm" <<'PRERM'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now waltide.service || true
fi
PRERM
chmod 0755 "$tree/DEBIAN/postinst" "$tree/DEBIAN/prerm"
dpkg-deb --root-owner-group "-Z${DEB_COMPRESSION:-xz}" --build "$tree" \
    "$out/waltide_${version}_${architecture}.deb" >/dev/null
printf '%s\n' "$out/waltide_${version}_${architecture}.deb"
