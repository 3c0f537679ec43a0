#!/usr/bin/env bash
# Prometheus and promtool 2.42.0 (Debian 12) take a histogram whose last bucket is `le="1.7976931348623157e308"`, the
# largest double, without a word: `promtool check metrics` exits with 0, a scrape is up. But every histogram_quantile of
# it is NaN, so a panel stays empty and an alert never fires. The format demands a bucket `le="+Inf"`. prometheus-client
# 0.26.0 (Python) refuses the same text.
#
# Output seen:
#   promtool check metrics: 0
#   up: 1
#   p99: NaN
#   prometheus-client: +Inf bucket missing: x_seconds
#
# Exits with 0 while that is so. Needs Debian's apt-get and Python.
set -euo pipefail
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT
cd "$work"
apt-get download -qq prometheus=2.42.0+ds-5+deb12u1
dpkg -x prometheus_*.deb .
python3 -m venv python
python/bin/pip install --quiet --disable-pip-version-check prometheus-client==0.26.0
cat >server.py <<'PYTHON'
import http.server, sys, time

def text(end=""):
    count = int(time.time() * 10) % 10**9
    return (
        "# HELP x_seconds Time\n# TYPE x_seconds histogram\n"
        f'x_seconds_bucket{{le="0.5"}} {count}\nx_seconds_bucket{{le="1.7976931348623157e308"}} {count}\n'
        f"x_seconds_count {count}\nx_seconds_sum {count}.0\n{end}"
    )

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text().encode())

    def log_message(self, *arguments):
        pass

if sys.argv[1] == "print":
    print(text(sys.argv[2]), end="")
else:
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
PYTHON
python3 server.py print "" >metrics.txt
checked=0
usr/bin/promtool check metrics <metrics.txt || checked=$?
python3 server.py serve >port &
until [ -s port ]; do sleep 0.1; done
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >prometheus.yml <<YAML
global: { scrape_interval: 1s }
scrape_configs: [{ job_name: x, static_configs: [{ targets: ["127.0.0.1:$(cat port)"] }] }]
YAML
usr/bin/prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.listen-address="127.0.0.1:$port" 2>/dev/null &
ask() {
    curl -s "http://127.0.0.1:$port/api/v1/query" --data-urlencode "query=$1" |
        python3 -c 'import json, sys; print(*(each["value"][1] for each in json.load(sys.stdin)["data"]["result"]))' 2>/dev/null || true
}
quantile='histogram_quantile(0.99, rate(x_seconds_bucket[5s]))'
for _ in $(seq 60); do
    [ -n "$(ask "$quantile")" ] && break
    sleep 0.5
done
parsed=$(python3 server.py print "# EOF
" | python/bin/python -c '
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
try:
    print(len(list(parse(sys.stdin.read()))))
except ValueError as error:
    print(error)')
seen="promtool check metrics: $checked
up: $(ask up)
p99: $(ask "$quantile")
prometheus-client: $parsed"
echo "$seen"
[ "$seen" = "promtool check metrics: 0
up: 1
p99: NaN
prometheus-client: +Inf bucket missing: x_seconds" ]
