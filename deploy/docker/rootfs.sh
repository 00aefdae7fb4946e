#!/bin/sh
# Makes the files of the image: rootfs.sh BINARY FILE.tar. The certificates of public authorities and the time zones are those of the system's packages
# ca-certificates and tzdata, whose compiled zones have many times the size that programs need. Equal inputs give equal files: all have the time
# SOURCE_DATE_EPOCH (default 0).
set -eu
binary=$1 to=$2

for file in /etc/ssl/certs/ca-certificates.crt /usr/share/zoneinfo/tzdata.zi; do
    [ -e "$file" ] || { echo "rootfs.sh: $file is missing: install the packages ca-certificates and tzdata" >&2; exit 1; }
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/etc/ssl/certs" "$dir/usr/bin" "$dir/usr/share" "$dir/srv/data" "$dir/srv/shared" "$dir/tmp"
cp "$binary" "$dir/usr/bin/bridgefour"
cp -L /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/"
PATH=$PATH:/usr/sbin zic -b slim -d "$dir/usr/share/zoneinfo" /usr/share/zoneinfo/tzdata.zi # zic is in Debian's libc-bin
echo 'root:x:0:0::/:/sbin/nologin
bridgefour:x:65532:65532::/srv/data:/sbin/nologin' >"$dir/etc/passwd"
echo 'root:x:0:
bridgefour:x:65532:' >"$dir/etc/group"
chmod -R u=rwX,go=rX "$dir"
chmod 755 "$dir/usr/bin/bridgefour"
chmod 700 "$dir/srv/data"
chmod 1777 "$dir/tmp"
pack() { tar --format=gnu --sort=name --mtime="@${SOURCE_DATE_EPOCH:-0}" --numeric-owner -C "$dir" "$@"; }
pack --owner=0 --group=0 -cf "$to.tmp" etc tmp usr
pack --owner=65532 --group=65532 -rf "$to.tmp" srv
mv "$to.tmp" "$to"
