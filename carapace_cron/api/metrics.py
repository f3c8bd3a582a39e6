"""``GET /metrics`` for Prometheus: the gateway's own series for the operator, and the ``hc_…`` series of the
monitors that the token's holder may read.

Read by a token like any other address: a name in a label tells of its job, and a rate of how busy one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from carapace_cron.api.check_metrics import check_series
from carapace_cron.errors import Forbidden, Unavailable
from carapace_cron.gateway.credentials import Identify, actor_of, token_of
from carapace_cron.gateway.faults import HttpFault
from carapace_cron.gateway.hookspecs import Route
from carapace_cron.metrics import GAUGES, Buckets, Count, Gauge, Spread
from carapace_cron.services.metrics import MetricsReport, Readings, Report
from carapace_cron.services.monitors import MonitorDesk


class MetricsDoor:
    """`identify`: whose a token is."""

    def __init__(self, report: MetricsReport, monitors: MonitorDesk, identify: Identify) -> None:
        self._report = report
        self._monitors = monitors
        self._identify = identify

    def routes(self) -> Sequence[Route]:
        return [Route("GET", "/metrics", self.show, None, from_anywhere=True, often=True)]

    async def show(self, request: web.Request) -> web.StreamResponse:
        actor = await actor_of(token_of(request.headers), self._identify)
        try:
            report = await self._report.read(actor)
            watched = await self._monitors.list(actor) if actor.may("monitors:read") else []
        except Forbidden as error:
            raise HttpFault(403, str(error)) from error
        except Unavailable as error:
            raise HttpFault(503, "the ledger cannot be reached now: try again in a few seconds") from error
        own = "" if report is None else exposition(report)
        series = check_series(watched, self._monitors.now()) if actor.may("monitors:read") else ()
        text = own + "".join(series)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def exposition(report: Report) -> str:
    """The report and the process's own numbers in Prometheus' text form, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(report))
    ProcessCollector(registry=registry)
    return generate_latest(registry).decode()


class _Families(Collector):
    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        counted, gauges = self._report.counted, self._report.gauges
        yield from (_counter(one) for one in counted.counts)
        yield from (_histogram(one) for one in counted.spreads)
        yield from (_gauge(one, gauges[one.name]) for one in GAUGES if one.name in gauges)

    def describe(self) -> list[Metric]:
        return []


def _counter(count: Count) -> Metric:
    family = CounterMetricFamily(count.name, count.text, labels=count.labels)
    for labels, times in count.values.items():
        family.add_metric(labels, times)
    return family


def _histogram(spread: Spread) -> Metric:
    family = HistogramMetricFamily(spread.name, spread.text, labels=spread.labels)
    for labels, buckets in spread.values.items():
        family.add_metric(labels, list(_cumulated(spread.bounds, buckets)), buckets.total)
    return family


def _cumulated(bounds: Sequence[float], buckets: Buckets) -> Iterator[tuple[str, float]]:
    so_far = 0
    for bound, count in zip((*bounds, inf), tuple(buckets.counts), strict=True):
        so_far += count
        yield ("+Inf" if bound == inf else f"{bound:g}"), so_far


def _gauge(gauge: Gauge, readings: Readings) -> Metric:
    family = GaugeMetricFamily(gauge.name, gauge.text, labels=gauge.labels)
    for labels, number in readings.items():
        family.add_metric(labels, number)
    return family
