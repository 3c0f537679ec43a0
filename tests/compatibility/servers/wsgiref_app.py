"""The application of wsgi.py in wsgiref. Usage: wsgiref_app.py PORT."""

import sys
from wsgiref.simple_server import make_server

from wsgi import app

make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()
