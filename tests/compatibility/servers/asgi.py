"""An ASGI application: reads the body, works for `?ms=` milliseconds, and answers.

`/early` answers 400 before the body is read, `/headers` names the headers of the request.
"""

import asyncio
from urllib.parse import parse_qs


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    status, body = 200, b"ok"
    if scope["path"] == "/early":
        status, body = 400, b"early"
    else:
        while (await receive()).get("more_body"):
            pass
        query = parse_qs(scope["query_string"].decode())
        await asyncio.sleep(int(query.get("ms", ["0"])[0]) / 1000)
    if scope["path"] == "/headers":
        body = b"\n".join(sorted(name + b"=" + value for name, value in scope["headers"]))
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
