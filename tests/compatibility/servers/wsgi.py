"""A WSGI application: reads the body, works for `?ms=` milliseconds, and answers with what it got.

`/early` answers 400 before the body is read, `/headers` names the headers of the request.
"""

import time
from urllib.parse import parse_qs


def app(environ, start_response):
    query = parse_qs(environ.get("QUERY_STRING", ""))
    path = environ["PATH_INFO"]
    if path == "/early":
        start_response("400 Bad Request", [("content-length", "5")])
        return [b"early"]
    if length := int(environ.get("CONTENT_LENGTH") or 0):
        environ["wsgi.input"].read(length)
    time.sleep(int(query.get("ms", ["0"])[0]) / 1000)
    if path == "/headers":
        named = sorted(f"{key}={value}" for key, value in environ.items() if key.startswith("HTTP_"))
        body = "\n".join(named).encode()
    else:
        body = b"ok"
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", str(len(body)))])
    return [body]
