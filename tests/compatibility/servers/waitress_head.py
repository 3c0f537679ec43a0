"""A WSGI application that yields a body for HEAD, too. Usage: waitress_head.py PORT."""

import sys

import waitress


def app(environ, start_response):
    start_response("200 OK", [("content-length", "4")])
    return [b"body"]


waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]))
