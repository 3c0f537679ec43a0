"""Reads the metrics of a node with the strict OpenMetrics parser of prometheus-client.

Usage: metrics.py URL [FAMILY...]. Fails where the parser does, where a histogram has no +Inf bucket, and where a named
family is not there.
"""

from __future__ import annotations

import sys
from urllib.request import Request, urlopen

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as classic


def scrape(url: str, accept: str) -> str:
    with urlopen(Request(f"{url}/metrics", headers={"Accept": accept}), timeout=10) as response:
        return str(response.read().decode())


def main(url: str, *wanted: str) -> None:
    families = {family.name: family for family in open_metrics(scrape(url, "application/openmetrics-text"))}
    for family in families.values():
        if family.type == "histogram":
            bounds = {sample.labels["le"] for sample in family.samples if sample.name.endswith("_bucket")}
            assert not bounds or "+Inf" in bounds, f"{family.name} ends at {max(bounds, key=float)}"
    for name in wanted:
        assert name in families and families[name].samples, f"there is no {name}"
    # The older format has the same families.
    older = {family.name for family in classic(scrape(url, "text/plain"))}
    assert older == set(families), f"only one format has {older ^ set(families)}"
    print(f"{len(families)} families")


if __name__ == "__main__":
    main(*sys.argv[1:])
