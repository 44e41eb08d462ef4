"""Metrics: what they count, and that they are what Prometheus expects."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable

import anyio
import msgspec
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from stoker.daemon.metrics import PHASES, SOURCES
from stoker.daemon.records import Records
from stoker.ipc.control_messages import StatusReport
from stoker.ipc.messages import PrefixReport
from tests.fakes.page_stage import Shown, afternoon

LABELS = {"phase", "step", "cause", "outcome", "source", "version", "python", "le"}
SERIES_LIMIT = 160


def scraped(shown: Shown) -> str:
    """What a scrape of this daemon gets."""
    report: StatusReport = anyio.run(shown.status)
    return shown.insight.metrics.exposition(report).decode()


def value(text: str, series: str) -> float:
    """Of one series."""
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    assert found, f"{series} is missing"
    return float(found[1])


def ours(text: str) -> list[Metric]:
    return [family for family in text_string_to_metric_families(text) if family.name.startswith("stoker_")]


@pytest.fixture
def shown() -> Shown:
    return Shown()


def served(records: Records, tokens: int = 3) -> None:
    row = records.open()
    row.waits(0)
    row.given(1)
    row.admitted(100, 60)
    for _ in range(tokens):
        row.tokens(1)
    row.finished(100, 60, tokens)
    records.close(row, "served")


def test_requests_are_counted(shown: Shown) -> None:
    """Outcomes, tokens, cached tokens and times of requests that ended are there."""
    records = shown.insight.records
    served(records)
    served(records)
    records.close(records.open(), "failed")
    text = scraped(shown)

    assert value(text, 'stoker_requests_total{outcome="served"}') == 2
    assert value(text, 'stoker_requests_total{outcome="failed"}') == 1
    assert value(text, 'stoker_requests_total{outcome="cancelled"}') == 0
    assert value(text, "stoker_prompt_tokens_total") == 200
    assert value(text, "stoker_prompt_cached_tokens_total") == 120
    assert value(text, "stoker_completion_tokens_total") == 6
    assert value(text, "stoker_time_to_first_token_seconds_count") == 2
    assert value(text, "stoker_inter_token_seconds_count") == 4
    assert value(text, "stoker_queue_wait_seconds_count") == 3
    assert value(text, "stoker_request_duration_seconds_count") == 2


def test_resumed_requests_are_counted(shown: Shown) -> None:
    """Each time that a request went on with another worker is one."""
    records = shown.insight.records
    row = records.open()
    for generation in (1, 2, 3):
        row.given(generation)
    records.close(row, "served")

    assert value(scraped(shown), "stoker_requests_resumed_total") == 2


@pytest.mark.parametrize("phase", PHASES)
def test_phase_is_one_of_all(shown: Shown, phase: str) -> None:
    """Exactly one phase is 1, and every other is there as 0."""
    shown.publish(phase=phase)
    values = {name: value(scraped(shown), f'stoker_phase{{phase="{name}"}}') for name in PHASES}

    assert values == {name: float(name == phase) for name in PHASES}


def test_life_is_counted() -> None:
    """Departures by cause, warmups by outcome, prefixes by source, and the steps of the last start are there."""
    text = scraped(afternoon())

    assert value(text, 'stoker_worker_departures_total{cause="crashed"}') == 1
    assert value(text, 'stoker_worker_departures_total{cause="requested"}') == 1
    assert value(text, 'stoker_warmups_total{outcome="succeeded"}') == 3
    assert value(text, 'stoker_warmup_prefixes_total{source="restored"}') == 6
    assert value(text, "stoker_worker_generation") == 3
    assert value(text, 'stoker_prefixes{source="prefilled"}') == 1
    assert value(text, "stoker_prefix_warm_tokens") == 24_456


def test_memory_and_disk_are_told() -> None:
    """The worker's memory, the cache and the store have their sizes and limits in bytes."""
    text = scraped(afternoon())

    assert value(text, "stoker_worker_resident_memory_bytes") == 18_770 << 20
    assert value(text, "stoker_prefix_cache_limit_bytes") == 2 << 30
    assert value(text, "stoker_prefix_store_budget_bytes") == 8 << 30
    assert value(text, "stoker_prefix_store_quarantined") == 0


def test_unknown_is_left_out(shown: Shown) -> None:
    """Without a worker there is no memory of one: not 0, which would be a lie."""
    assert "stoker_worker_resident_memory_bytes" not in scraped(shown)


def test_sources_are_those_of_the_protocol() -> None:
    """Each source that a worker may report has a series."""
    (field,) = (field for field in msgspec.structs.fields(PrefixReport) if field.name == "source")

    assert set(SOURCES) == set(field.type.__args__)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_no_complaint() -> None:
    """`promtool check metrics` says nothing."""
    done = subprocess.run(
        ["promtool", "check", "metrics"],  # noqa: S607 - from PATH, where `skipif` found it
        input=scraped(afternoon()),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


RULES: dict[str, Callable[[Metric], object]] = {
    "is no lower-case name of words": lambda m: not re.fullmatch(r"stoker_[a-z]+(_[a-z]+)*", m.name),
    "has no help text that is a sentence": lambda m: not m.documentation.endswith("."),
    "is a histogram without a unit": lambda m: m.type == "histogram" and not m.name.endswith("_seconds"),
    "is a counter without _total": lambda m: (
        m.type == "counter" and not all(sample.name.endswith("_total") for sample in m.samples)
    ),
    "is a gauge that looks like a counter": lambda m: m.type == "gauge" and m.name.endswith("_total"),
    "is not in a base unit": lambda m: re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)(_|$)", m.name),
}
"""What Prometheus' conventions hold against a metric, and when."""


def fault(family: Metric) -> str | None:
    return next((words for words, broken in RULES.items() if broken(family)), None)


def test_names_follow_the_conventions() -> None:
    """Names, units, suffixes and help texts are as Prometheus wants them, also where there is no promtool."""
    families = ours(scraped(afternoon()))

    assert {family.name: fault(family) for family in families if fault(family)} == {}
    assert len(families) > 25


@pytest.mark.parametrize(
    "spoil",
    [
        lambda metric: setattr(metric, "name", "stoker_Ready"),
        lambda metric: setattr(metric, "documentation", ""),
        lambda metric: setattr(metric, "name", "stoker_wait_ms"),
        lambda metric: setattr(metric, "type", "histogram"),
    ],
)
def test_bad_metrics_are_noticed(spoil: Callable[[Metric], None]) -> None:
    """A wrong name, a missing help text and a missing unit are faults."""
    metric = Metric("stoker_ready", "1 while ready.", "gauge")
    assert fault(metric) is None
    spoil(metric)

    assert fault(metric)


def test_labels_do_not_grow() -> None:
    """Whatever happens, the series are the same, few, and their labels known."""
    shown = afternoon()
    before = scraped(shown)
    records = shown.insight.records
    for number in range(50):
        row = records.open()
        row.cause = f"cause {number}"
        records.close(row, "failed")
    after = scraped(shown)

    series = [sample for family in ours(after) for sample in family.samples]
    assert len(series) == len([sample for family in ours(before) for sample in family.samples]) <= SERIES_LIMIT
    assert {name for sample in series for name in sample.labels} <= LABELS
