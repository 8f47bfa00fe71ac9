#!/bin/bash
# Builds a fixture application from empty caches through a module proxy, with
# the checksum database on, and compares the go.sum that results with the one
# the public Go mirror gave.
#
#   fresh-build.sh [--keep DIR] pocket|office [PROXY_URL]
#
# Without PROXY_URL it starts tools/upstream on loopback for itself. With one,
# such as a Larder whose upstream is tools/upstream, or file:///…, it builds
# through that. --keep leaves the module cache in DIR, for a look at it later.
# GOCACHE is kept between runs (-trimpath makes that work), so only the first
# run compiles. SSL_CERT_FILE is passed on, for an https URL with a test CA.
#
# The office application is too large for this repository: it is found beside
# the tree that LARDER_OFFICE_TREE names (TREE/../apps/office).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
keep=
if [ "${1:-}" = --keep ]; then
	keep=$2
	shift 2
fi
app=${1:?pocket or office}
proxy=${2:-}
tree=$here/../fixtures/tree
if [ "$app" = office ]; then
	tree=${LARDER_OFFICE_TREE:?is not set: it names the fixture tree of the office application}
fi
expected=$tree/../apps/$app
work=$(mktemp -d)
upstream_pid=
cleanup() {
	if [ -n "$upstream_pid" ]; then kill "$upstream_pid" 2>/dev/null || true; fi
	rm -rf "$work"
}
trap cleanup EXIT

export GOCACHE=${GOCACHE:-$(go env GOCACHE)}
if [ -z "$proxy" ]; then
	(cd "$here/upstream" && GOFLAGS='' go build -o "$work/upstream" .)
	"$work/upstream" -tree "$tree" -ready "$work/ready" >/dev/null &
	upstream_pid=$!
	for _ in $(seq 100); do
		if [ -s "$work/ready" ]; then break; fi
		sleep 0.05
	done
	proxy=$(sed -E 's/.*"http":"([^"]*)".*/\1/' "$work/ready")
fi

mkdir "$work/app"
cp "$expected"/{main.go,go.mod} "$work/app/"
cd "$work/app"
unset GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE
export GOPROXY=$proxy GOMODCACHE=${keep:-$work/modcache} GOPATH=$work/gopath
export GOFLAGS="-mod=mod -modcacherw -trimpath" GOTOOLCHAIN=local GOSUMDB
GOSUMDB=$(cut -d+ -f1 "$here/../fixtures/sumdb-key.txt")
# There is no checksum database behind a file:// proxy; go.sum was compared before, when there was one.
case $proxy in file://*)
	GOSUMDB=off
	;;
esac
started=$(date +%s.%N)
go build -o "$work/bin" .
finished=$(date +%s.%N)
"$work/bin"
cmp go.sum "$expected/go.sum.build"
cmp go.mod "$expected/go.mod"
zips=$(find "$GOMODCACHE/cache/download" -name '*.zip' | wc -l)
lookups=0
if [ -d "$GOMODCACHE/cache/download/sumdb" ]; then
	lookups=$(find "$GOMODCACHE/cache/download/sumdb" -path '*/lookup/*' -type f | wc -l)
fi
go mod verify
echo "$app: $zips zips, $lookups checksum lookups, go.sum as recorded, $(awk "BEGIN { printf \"%.1f\", $finished - $started }") s"
