"""Flask behind Werkzeug's ProxyFix: answers with the URL that it would link to. Usage: flask_app.py PORT."""

import sys

from flask import Flask, url_for
from werkzeug.middleware.proxy_fix import ProxyFix

app = Flask(__name__)
app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)


@app.get("/")
def index():
    return url_for("index")


app.run(host="127.0.0.1", port=int(sys.argv[1]))
