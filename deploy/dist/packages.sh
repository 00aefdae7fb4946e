#!/bin/sh
# Makes a tarball, a deb and an rpm for each architecture, and their checksums: packages.sh VERSION FOLDER BINARY-PREFIX ARCH…, with binaries BINARY-PREFIXARCH.
# The same sources give the same files: all have the time SOURCE_DATE_EPOCH (default 0).
set -eu
cd "$(dirname "$0")/../.."
version=$1 to=$2 prefix=$3
shift 3

nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.43.1 # later ones need modules that the Go proxy does not have
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" GOARCH STAGE PACKAGE_VERSION
case $version in
v[0-9]*) PACKAGE_VERSION=$(echo "${version#v}" | tr - .) ;;
*) PACKAGE_VERSION=0.0.0+$(echo "$version" | tr - .) ;; # no release
esac

rm -rf "$to"
mkdir -p "$to"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
GOARCH='' GOBIN=$tools GOFLAGS=-trimpath go install "$nfpm"
for GOARCH in "$@"; do
    name=bridgefour_${PACKAGE_VERSION}_linux_$GOARCH
    STAGE=$tools/$name
    mkdir -p "$STAGE"
    cp "$prefix$GOARCH" "$STAGE/bridgefour"
    cp -R bin/share "$STAGE/share"
    cp -R deploy/systemd "$STAGE/systemd"
    cp LICENSE README.md "$STAGE/"
    chmod -R u=rwX,go=rX "$STAGE"
    find "$STAGE" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    tar --format=gnu --sort=name --owner=0 --group=0 --numeric-owner -C "$tools" -cf - "$name" | gzip -n -9 >"$to/$name.tar.gz"
    for packager in deb rpm; do
        "$tools/nfpm" package --config deploy/dist/nfpm.yaml --packager "$packager" --target "$to/" >/dev/null
    done
done
cd "$to"
sha256sum bridgefour* >SHA256SUMS
