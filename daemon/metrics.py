"""The daemon's figures in Prometheus' terms; `docs/monitoring.md` explains each.

Requests are counted as they end. Everything else is read from a `StatusReport` when it is asked for, so that metrics
cost nothing while nobody scrapes. Labels have few, fixed values: no client, model or prefix is one.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.metrics import disable_created_metrics
from prometheus_client.registry import Collector

from ..ipc.control_messages import Outcome as WarmupOutcome
from ..ipc.control_messages import Phase, StatusReport
from .records import GAPS, OUTCOMES, Record, Records
from .timeline import CLASSES, STEPS, Timeline

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

FIRST_TOKEN = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds: from a warm prefix on a fast machine to a cold one on a slow one."""
WAITS = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
DURATIONS = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)

PHASES: tuple[str, ...] = get_args(Phase)
WARMUP_OUTCOMES: tuple[str, ...] = get_args(WarmupOutcome)
SOURCES = ("restored", "prefilled", "resident", "none")

Families: TypeAlias = Iterator[Metric]

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for every counter, which nobody asked for


class Metrics:
    """All series, over one daemon.

    Args:
        records: Of requests; heard from now on.
        timeline: Of phases.
    """

    def __init__(self, records: Records, timeline: Timeline) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # of the daemon, by its usual names; Linux only
        self._requests = _Requests(self._registry)
        self._state = _State(records, timeline)
        self._registry.register(self._state)
        records.subscribe(self._requests.note)

    def exposition(self, report: StatusReport) -> bytes:
        """Everything as of a report, in the text format."""
        self._state.report = report
        return generate_latest(self._registry)


class _Requests:
    """What is known of a request once it ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, words: str) -> Counter:
            return Counter(f"stoker_{name}", words, registry=registry)

        def histogram(name: str, words: str, bounds: tuple[float, ...]) -> Histogram:
            return Histogram(f"stoker_{name}", words, buckets=bounds, registry=registry)

        self._ended = Counter("stoker_requests", "Requests that ended.", ["outcome"], registry=registry)
        for outcome in OUTCOMES:
            self._ended.labels(outcome)  # there from the first scrape on, so that a first failure is an increase
        self._resumed = counter("requests_resumed", "Times that a request went on with another worker.")
        self._prompt = counter("prompt_tokens", "Tokens of prompts.")
        self._cached = counter("prompt_cached_tokens", "Tokens of prompts that needed no prefill.")
        self._completion = counter("completion_tokens", "Tokens of answers.")
        self._first = histogram(
            "time_to_first_token_seconds", "From a request's arrival to its first token.", FIRST_TOKEN
        )
        self._waited = histogram("queue_wait_seconds", "Time in which a request had no worker.", WAITS)
        self._took = histogram("request_duration_seconds", "From a served request's arrival to its end.", DURATIONS)

    def note(self, record: Record) -> None:
        """One has ended."""
        self._ended.labels(record.outcome).inc()
        self._resumed.inc(record.resumed)
        self._prompt.inc(record.prompt_tokens)
        self._cached.inc(record.cached_tokens)
        self._completion.inc(record.completion_tokens)
        self._waited.observe(record.waited)
        if record.first_token is not None:
            self._first.observe(record.first_token)
        if record.outcome == "served":
            self._took.observe(record.seconds)


class _State(Collector):
    """What is read when it is asked for."""

    def __init__(self, records: Records, timeline: Timeline) -> None:
        self.report: StatusReport | None = None
        self._records = records
        self._timeline = timeline

    def describe(self) -> Families:
        """Nothing beforehand: there is no report yet when this is registered."""
        return iter(())

    def collect(self) -> Families:
        """All families."""
        yield self._gaps()
        yield from _lives(self._timeline)
        if self.report is not None:
            yield from _readiness(self.report)
            yield from _gauges(self.report)

    def _gaps(self) -> Metric:
        gaps = self._records.gaps
        bounds = [*map(str, GAPS), "+Inf"]
        words = "From one token of an answer to the next, pauses for a new worker included."
        buckets = list(zip(bounds, map(float, gaps.cumulative()), strict=True))
        return HistogramMetricFamily("stoker_inter_token_seconds", words, buckets=buckets, sum_value=gaps.sum)


def _lives(timeline: Timeline) -> Families:
    yield _counter("worker_departures", "Workers that ended.", "cause", CLASSES, timeline.restarts)
    yield _counter("warmups", "Warmups of new workers that ended.", "outcome", WARMUP_OUTCOMES, timeline.warmups)
    yield _counter("warmup_prefixes", "Prefixes that new workers warmed.", "source", SOURCES, timeline.prefixes)
    if timeline.last_start is not None:
        words = "How long each step to ready took for the newest worker that is, or was."
        yield _gauge("worker_start_seconds", words, "step", STEPS, timeline.last_start.steps)


def _readiness(report: StatusReport) -> Families:
    yield _gauge("phase", "1 for the phase that the daemon is in.", "phase", PHASES, {report.phase: 1})
    yield _single("ready", "1 while requests are served at once.", report.ready)
    yield _single("warm", "1 if the worker that serves is warm.", report.warm)
    yield _single("worker_generation", "Number of the worker's life.", report.generation)
    sources = [prefix.source for prefix in report.prefixes]
    counts = {source: sources.count(source) for source in SOURCES}
    yield _gauge("prefixes", "Prefixes of the last warmup, by where they came from.", "source", SOURCES, counts)
    yield _single("prefix_warm_tokens", "Tokens of prefixes that are warm.", _warm_tokens(report))
    labels = {"version": report.version, "python": platform.python_version()}
    build = GaugeMetricFamily("stoker_build_info", "1; what runs is in the labels.", labels=list(labels))
    build.add_metric(list(labels.values()), 1)
    yield build


def _warm_tokens(report: StatusReport) -> int:
    return sum(prefix.tokens_warm for prefix in report.prefixes)


READINGS: tuple[tuple[str, str, Callable[[StatusReport], float | None]], ...] = (
    ("uptime_seconds", "Since the daemon's start.", lambda r: r.uptime),
    ("requests_running", "Requests that a worker has.", lambda r: r.requests.running),
    ("requests_waiting", "Requests that wait for a worker.", lambda r: r.requests.waiting),
    ("worker_uptime_seconds", "Since the worker's start.", lambda r: None if r.worker is None else r.worker.uptime),
    (
        "worker_resident_memory_bytes",
        "Of the worker process.",
        lambda r: None if r.worker is None else r.worker.memory_bytes,
    ),
    ("prefill_tokens_per_second", "Of the worker's latest prefill.", lambda r: r.rates.prompt_tps),
    ("decode_tokens_per_second", "Of the worker's latest answers.", lambda r: r.rates.generation_tps),
    ("prefix_cache_bytes", "KV of prefixes in memory.", lambda r: None if r.cache is None else r.cache.bytes),
    ("prefix_cache_limit_bytes", "What it may take.", lambda r: None if r.cache is None else r.cache.limit_bytes),
    ("prefix_cache_entries", "Prefixes in memory.", lambda r: None if r.cache is None else r.cache.entries),
    (
        "prefix_store_bytes",
        "Prefixes on disk, other models' too.",
        lambda r: None if r.store is None else r.store.bytes,
    ),
    ("prefix_store_budget_bytes", "What they may take.", lambda r: None if r.store is None else r.store.budget_bytes),
    (
        "prefix_store_entries",
        "Prefixes on disk of the loaded model.",
        lambda r: None if r.store is None else r.store.entries,
    ),
    (
        "prefix_store_quarantined",
        "Prefixes on disk that were set aside.",
        lambda r: None if r.store is None else r.store.quarantined,
    ),
)
"""Gauges of one value: name, help, and where it is in a report. One that is not known is left out, not 0."""


def _gauges(report: StatusReport) -> Families:
    for name, words, read in READINGS:
        value = read(report)
        if value is not None:
            yield _single(name, words, value)


def _single(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"stoker_{name}", words, value=float(value))


def _gauge(name: str, words: str, label: str, values: tuple[str, ...], figures: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"stoker_{name}", words, labels=[label])
    for value in values:
        family.add_metric([value], figures.get(value, 0))
    return family


def _counter(name: str, words: str, label: str, values: tuple[str, ...], figures: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"stoker_{name}", words, labels=[label])
    for value in values:
        family.add_metric([value], figures.get(value, 0))
    return family
