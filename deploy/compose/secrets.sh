#!/bin/sh
# Makes the secrets of a compose file, once: secrets.sh [compose.yml]. The key of the cluster is for its leaders only; the string, for workers, follows from the
# key and the leaders of the file. The folder is closed to other users; the files in it are not, because the user of the containers must read them.
set -eu
cd "$(dirname "$0")"
file=${1:-compose.yml}
image=${BRIDGEFOUR_IMAGE:-bridgefour}
secrets=${BRIDGEFOUR_SECRETS:-$PWD/secrets}

peers=$(sed -n 's/^ *BRIDGEFOUR_PEERS: *//p' "$file")
umask 022
mkdir -p "$secrets"
chmod 700 "$secrets"
[ -s "$secrets/cluster.key" ] || { docker run --rm "$image" ca key >"$secrets/new" && mv "$secrets/new" "$secrets/cluster.key"; }
docker run --rm -v "$secrets/cluster.key:/run/secrets/cluster_key:ro" "$image" ca join --cluster-key /run/secrets/cluster_key --peers "$peers" \
    >"$secrets/worker.join"
