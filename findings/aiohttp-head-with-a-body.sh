#!/usr/bin/env bash
# aiohttp 3.14.5 (PyPI): a handler that answers with `StreamResponse` sends its body to a HEAD request, too. A response to
# HEAD has no body (RFC 9110, 9.3.2), so the bytes stand where the next response on the connection begins: a client that
# keeps its connections reads `bodyHTTP/1.1 200 OK` as the status line of the next response. (`web.Response` leaves the
# body out.) A proxy must therefore not use such a connection again as it is.
#
# The client is Python's own http.client; a HEAD and a GET go over one connection.
#
# Output seen (Linux 6.x, Python 3.11):
#   HEAD 200 content-length 4
#   GET BadStatusLine bodyHTTP/1.1 200 OK
#
# Exits with 0 while that is so.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install aiohttp==3.14.5
cat >"$work/server.py" <<'PY'
import sys
from aiohttp import web

async def handle(request):
    response = web.StreamResponse()
    response.content_length = 4
    await response.prepare(request)
    await response.write(b"body")
    await response.write_eof()
    return response

app = web.Application()
app.router.add_route("*", "/", handle)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
PY
cat >"$work/client.py" <<'PY'
import http.client, sys, time

connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
for attempt in range(50):
    try:
        connection.connect()
        break
    except ConnectionRefusedError:
        time.sleep(0.1)
connection.request("HEAD", "/")
response = connection.getresponse()
response.read()
print("HEAD", response.status, "content-length", response.getheader("content-length"))
time.sleep(0.2)
connection.request("GET", "/")
try:
    response = connection.getresponse()
    print("GET", response.status, response.read())
except http.client.HTTPException as error:
    print("GET", type(error).__name__, str(error).strip())
PY
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/python" "$work/server.py" "$port" &
server=$!
seen=$(python3 "$work/client.py" "$port")
echo "$seen"
diff <(echo "$seen") - <<'EXPECTED'
HEAD 200 content-length 4
GET BadStatusLine bodyHTTP/1.1 200 OK
EXPECTED
