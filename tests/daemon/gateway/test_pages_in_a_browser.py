"""The status page in a real browser: content, life, buttons, and that everybody can use it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from stoker.daemon.gateway.keys import Access, Keys
from stoker.ipc.control_messages import ProgressStatus
from tests.fakes.browser import CHROMIUM, FLAGS
from tests.fakes.http import serving
from tests.fakes.page_stage import Shown, afternoon

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

DEADLINE = 20_000.0
"""Milliseconds for anything to appear."""

SIZES = ((1280, 900), (768, 1000), (400, 900))
VIEWPORT = {"width": SIZES[0][0], "height": SIZES[0][1]}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The system's browser with an empty profile, one process for all tests; playwright adds `--headless`.

    What a page stores belongs to its port, which each test has for itself.
    """
    with playwright.sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=CHROMIUM, args=FLAGS, viewport=VIEWPORT
        )
        context.set_default_timeout(DEADLINE)
        yield context
        context.close()


@contextmanager
def window(context: Any) -> Iterator[Any]:
    """An empty page."""
    page = context.new_page()
    try:
        yield page
    finally:
        page.close()


@contextmanager
def opened(chromium: Any, url: str) -> Iterator[Any]:
    """The page, live; anything that it complains of fails the test."""
    complaints: list[str] = []
    with window(chromium) as page:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(url)
        page.wait_for_selector("#live:not([hidden])")
        yield page
    assert not [text for text in complaints if "Failed to load resource" not in text]


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    """The event loop of the gateways, beside the tests' own thread."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def backend(portal: BlockingPortal) -> Shown:
    return portal.call(afternoon)


@pytest.fixture
def url(portal: BlockingPortal, backend: Shown) -> Iterator[str]:
    with portal.wrap_async_context_manager(serving(backend)) as address:
        yield address.url


@pytest.fixture
def page(chromium: Any, url: str) -> Iterator[Any]:
    with opened(chromium, url) as page:
        yield page


@pytest.fixture(scope="class")
def stage(portal: BlockingPortal) -> Shown:
    """The backend of a class's page."""
    return portal.call(afternoon)


@pytest.fixture(scope="class")
def stage_page(chromium: Any, portal: BlockingPortal, stage: Shown) -> Iterator[Any]:
    with portal.wrap_async_context_manager(serving(stage)) as address, opened(chromium, address.url) as page:
        yield page


def text(page: Any, selector: str) -> str:
    return str(page.inner_text(selector))


def wait_for(page: Any, selector: str, pattern: str) -> None:
    """Until the element's text contains what the pattern says."""
    playwright.expect(page.locator(selector)).to_contain_text(re.compile(pattern), timeout=DEADLINE)


def test_page_shows_the_daemon(page: Any) -> None:
    """Headline, figures, requests, prefixes, phases and log are there."""
    wait_for(page, "#inhand", "waiting, 0 ahead")

    assert text(page, "#title") == "Ready and warm"
    assert "Qwen3-30B-A3B-Instruct-4bit" in text(page, "#facts")
    assert page.locator("#inhand progress").get_attribute("max") == "14230"
    assert "3 workers in a row were lost" in text(page, "#ended")
    assert "18,214" in text(page, "#prefixes")
    assert "crashed with SIGABRT" in text(page, "#phases")
    assert "reason=crashed with SIGABRT" in text(page, "#log")
    assert "1.3 GiB of 2.0 GiB" in text(page, "#meters")
    assert page.locator(".chart canvas").count() == 2
    assert "half took at most" in page.locator("#first").get_attribute("aria-label")


def test_page_follows_the_daemon(page: Any, portal: BlockingPortal, backend: Shown) -> None:
    """A transition, progress, and a request that ends are shown without a reload."""
    progress = ProgressStatus(stage="warm", done=900, total=1800, name="system")
    portal.call(
        lambda: backend.publish(
            ready=False, phase="warming", warm=False, generation=4, since=time.time(), progress=progress
        )
    )
    wait_for(page, "#title", "^Warming$")
    wait_for(page, "#progress-text", "system: 900 of 1,800 tokens")

    records = backend.insight.records
    portal.call(lambda: records.close(records.live[0], "served"))
    wait_for(page, "#ended", "1,012")
    assert page.title() == "Stoker: Warming"


def test_buttons_do_what_they_say(page: Any, backend: Shown) -> None:
    """Rewarm and Restart reach the daemon, and the page says how it went."""
    page.get_by_role("button", name="Rewarm").click()
    wait_for(page, "#notice", "Rewarm succeeded: 3 prefixes, 24,456 tokens, 0.40 s")
    page.get_by_role("button", name="Restart").click()
    wait_for(page, "#notice", "A new worker takes over")

    assert (backend.rewarms, backend.restarts) == (1, [False])


def test_buttons_work_by_keyboard(page: Any, backend: Shown) -> None:
    """The first stop of the Tab key is a button, and its focus can be seen."""
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    wait_for(page, "#notice", "Rewarm succeeded")

    assert outline == "solid"
    assert backend.rewarms == 1


def test_page_asks_for_the_key(chromium: Any, portal: BlockingPortal) -> None:
    """With API keys the page asks, says when a key is wrong, and keeps it for the tab only."""
    backend = portal.call(afternoon)
    backend.access = Access(Keys(["sk-right"]))
    with portal.wrap_async_context_manager(serving(backend)) as address, window(chromium) as page:
        page.goto(address.url)
        page.get_by_label("This daemon asks for an API key").fill("sk-wrong")
        page.keyboard.press("Enter")
        wait_for(page, "#notice", "That key is not one")
        assert axe.Axe().run(page).violations_count == 0
        page.get_by_label("This daemon asks for an API key").fill("sk-right")
        page.keyboard.press("Enter")
        wait_for(page, "#title", "Ready and warm")
        page.get_by_role("button", name="Restart").click()
        wait_for(page, "#notice", "A new worker takes over")
        kept = page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]")

    assert kept == [1, 0, ""]


def test_page_comes_back(chromium: Any, portal: BlockingPortal) -> None:
    """When the daemon goes the page says so; when it is there again the page is live by itself."""
    backend = portal.call(afternoon)
    with window(chromium) as page:
        with portal.wrap_async_context_manager(serving(backend)) as address:
            page.goto(address.url)
            wait_for(page, "#link", "^live$")
        wait_for(page, "#link", "away")
        assert page.get_by_role("button", name="Restart").is_disabled()
        with portal.wrap_async_context_manager(serving(backend, port=address.port)):
            wait_for(page, "#link", "^live$")


class TestEverybody:
    """What axe finds. One page for all of these, which each brings into the state that it is about."""

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("size", SIZES, ids=str)
    def test_everybody_can_use_the_page(self, stage_page: Any, scheme: str, size: tuple[int, int]) -> None:
        """At each size, light and dark, axe finds no violation, and nothing is wider than the window."""
        page = stage_page
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": size[0], "height": size[1]})
        wait_for(page, "#inhand", "waiting, 0 ahead")
        found = axe.Axe().run(page)

        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]

    @pytest.mark.parametrize("phase", ["warming", "backoff", "failed", "down"])
    def test_everybody_can_read_each_phase(
        self, stage_page: Any, portal: BlockingPortal, stage: Shown, phase: str
    ) -> None:
        """The colours of every headline have contrast enough."""
        page = stage_page
        before = text(page, "#title")
        portal.call(lambda: stage.publish(ready=False, phase=phase, warm=False, since=time.time(), reason="a crash"))
        playwright.expect(page.locator("#title")).not_to_have_text(before, timeout=DEADLINE)
        page.set_viewport_size(VIEWPORT)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="no-preference")
            found = axe.Axe().run(page)
            assert found.violations_count == 0, found.generate_report()


def test_page_reads_without_javascript(chromium: Any, url: str) -> None:
    """Where no script runs, the headline is still there, and the rest is told how to get."""
    context = chromium.browser.new_context(java_script_enabled=False)
    context.set_default_timeout(DEADLINE)
    with context, window(context) as page:
        page.goto(url)
        headline, body = text(page, "#title"), text(page, "main")

    assert headline == "Ready and warm"
    assert "Without JavaScript this is all" in body
