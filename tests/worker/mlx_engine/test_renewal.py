"""A prefix with the date in it is warmed again when the day has changed; the days are the test's own."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from stoker.ipc.messages import WarmPrefix
from stoker.worker.learning import Opening
from stoker.worker.mlx_engine import renewal
from stoker.worker.mlx_engine.planning import Plan
from stoker.worker.mlx_engine.renewal import LOOK_SECONDS, Renewal
from stoker.worker.prefix import SharedPrefix, TemplateDate
from tests.fakes.driven_core import DrivenCore, chat

SYSTEM = "You know what day it is, and say it in a sentence of some length whenever anybody wants to hear it. " * 3
MONDAY, TUESDAY = dt.date(2026, 3, 2), dt.date(2026, 3, 3)
DAILY, HOURLY = TemplateDate(None, time_of_day=False), TemplateDate(None, time_of_day=True)


class Days:
    """A planner whose prefixes are the date, a calendar and a clock."""

    def __init__(self) -> None:
        self.day = MONDAY
        self.now = 1000.0
        self.planned: list[str] = []
        self.renewal = Renewal(self, lambda: self.day, lambda: self.now)  # type: ignore[arg-type]

    def plan(self, name: str, opening: Opening, *, optional: bool = False, date: TemplateDate | None = DAILY) -> Plan:
        self.planned.append(name)
        tokens = (1, self.day.day) if date else (1, 2)
        return Plan(name, opening, SharedPrefix(tokens, 9, lasting=1 if date else None, date=date), optional=optional)


def test_a_changed_day_is_noticed_once() -> None:
    """After midnight the prefix is to be warmed with the new day's tokens, and then not again until the next."""
    days = Days()
    days.renewal.remember([days.plan("agent", Opening())])
    days.now += LOOK_SECONDS
    assert days.renewal.stale() == []

    days.day = TUESDAY
    days.now += LOOK_SECONDS
    assert [plan.prefix.tokens for plan in days.renewal.stale()] == [(1, TUESDAY.day)]
    days.now += LOOK_SECONDS
    assert days.renewal.stale() == []


def test_nothing_is_rendered_but_on_a_new_day() -> None:
    """However often it is asked, the clock is looked at once a minute, and templates are rendered once a day."""
    days = Days()
    days.renewal.remember([days.plan("agent", Opening())])
    days.planned.clear()
    for _ in range(100):
        days.now += 1
        days.renewal.stale()
    assert days.planned == []

    days.day = TUESDAY
    days.renewal.stale()
    assert days.planned == []  # within a minute of the last look
    days.now += LOOK_SECONDS
    days.renewal.stale()
    assert days.planned == ["agent"]


@pytest.mark.parametrize("date", [None, HOURLY])
def test_what_does_not_change_with_the_day_is_left_alone(date: TemplateDate | None) -> None:
    """A prefix without a date needs nothing; one with the time of day would be stale before it is warm."""
    days = Days()
    days.renewal.remember([days.plan("agent", Opening(), date=date)])

    assert days.renewal.due is None
    days.day = TUESDAY
    days.now += LOOK_SECONDS
    assert days.renewal.stale() == []


def test_a_name_stands_for_its_latest_prefix() -> None:
    """Once something without a date is warm under a name, what had it before is no longer renewed."""
    days = Days()
    days.renewal.remember([days.plan("agent", Opening())])
    assert days.renewal.due == LOOK_SECONDS
    days.renewal.remember([days.plan("agent", Opening(), date=None)])

    assert days.renewal.due is None


def test_the_first_request_of_a_new_day_is_warm(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At midnight an idle worker warms the new prefix by itself, tells so, and the next chat finds all of it."""
    model = shutil.copytree(tiny_llama, tmp_path / "model")
    config = model / "tokenizer_config.json"
    fields = json.loads(config.read_text(encoding="utf-8"))
    fields["chat_template"] = "{{ '<|im_start|>' + strftime_now('%d %B') }}" + fields["chat_template"]
    config.write_text(json.dumps(fields), encoding="utf-8")
    core = DrivenCore(model)
    date = MONDAY
    clock = SimpleNamespace(now=lambda: dt.datetime.combine(date, dt.time(12)))
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", clock)
    core.scheduler._background._renewal = Renewal(core.scheduler._planner, lambda: date, lambda: now)
    now = 1000.0

    before = core.warm(WarmPrefix(name="agent", system=SYSTEM)).prefixes[0]
    assert "midnight" in str(before.note)
    assert (core.core.idle, core.core.due) == (True, LOOK_SECONDS)

    date, now = TUESDAY, now + LOOK_SECONDS
    assert core.core.due == 0
    core.core.turn()
    core.turn_until(lambda: core.core.idle)

    (report,) = core.core._figures().prefixes
    answer = core.generate(chat(SYSTEM, "which day is it?"))
    assert (report.name, report.tokens_warm) == ("agent", report.tokens)
    assert answer.finished.usage.cached_tokens == report.tokens
    assert core.scheduler.cache.statistics().pinned == 1


def test_today_is_local() -> None:
    """The day is that of the machine's own time zone, as templates tell it."""
    assert renewal.today() in {dt.datetime.now().astimezone().date(), dt.datetime.now().astimezone().date()}
