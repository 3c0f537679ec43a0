"""Sends a body on HEAD, too, as `StreamResponse` does. Usage: aiohttp_app.py PORT."""

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
