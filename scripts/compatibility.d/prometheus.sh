#!/usr/bin/env bash
# Every expression of docs/grafana.json finds data in a real Prometheus, and a strict parser reads the metrics.
# PROMETHEUS names the program (Debian: apt-get install prometheus). Exit code 0: all of it does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python3 tests/compatibility/board.py "${PROMETHEUS:-prometheus}"
