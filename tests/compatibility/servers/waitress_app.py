"""The application of wsgi.py in waitress. Usage: waitress_app.py PORT."""

import sys

import waitress
from wsgi import app

waitress.serve(app, host="127.0.0.1", port=int(sys.argv[1]), max_request_body_size=1_000_000)
