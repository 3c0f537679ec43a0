#!/usr/bin/env bash
# Python's websockets and aiohttp, with their default limits, follow the stream of the largest state that a cluster holds,
# and continue at another node when theirs dies. Arguments: the numbers of upstreams, endpoints of each, and settings.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT
python3 -m venv "$packages"
"$packages/bin/pip" install --quiet --disable-pip-version-check websockets==17.4 aiohttp==3.14.5
"$packages/bin/python" tests/compatibility/stream.py "$@"
