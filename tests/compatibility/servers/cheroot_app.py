"""A WSGI application that yields a body for HEAD, too. Usage: cheroot_app.py PORT."""

import sys

from cheroot.wsgi import Server


def app(environ, start_response):
    start_response("200 OK", [("content-length", "4")])
    return [b"body"]


Server(("127.0.0.1", int(sys.argv[1])), app).start()
