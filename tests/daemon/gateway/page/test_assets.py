"""The status page's own files."""

from __future__ import annotations

import re

import pytest

from stoker.daemon.gateway.page.assets import FOLDER, TYPES, Assets
from tests.fakes.fake_dispatch import FakeBackend
from tests.fakes.http import connected, exchange, serving

pytestmark = pytest.mark.anyio

SERVED = sorted(Assets()._files)


@pytest.mark.parametrize("name", SERVED)
async def test_file_is_asked_for_again_by_its_checksum(name: str) -> None:
    """A file comes with its type and a tag; a browser that has it hears 304 and gets no byte."""
    async with serving(FakeBackend()) as address, connected(address) as client:
        await client.ask("GET", f"/assets/{name}")
        reply = await client.reply()
        tag = ("If-None-Match", reply.headers["etag"])
        await client.ask("GET", f"/assets/{name}", headers=[("Host", "localhost"), tag])
        again = await client.reply(to_head=True)

    assert reply.headers["content-type"].split(";")[0] in TYPES.values()
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert again.status == 304


@pytest.mark.parametrize("name", ["nothing.js", "page.html", "..%2fpages.py", "uplot.LICENSE.txt"])
async def test_nothing_else_is_served(name: str) -> None:
    """Only scripts, styles and the icon are: no template, and nothing outside the folder."""
    assert (await exchange(FakeBackend(), "GET", f"/assets/{name}")).status == 404


def test_scripts_write_text_only() -> None:
    """No script of ours can turn text into markup or code."""
    ours = [name for name in SERVED if name.endswith(".js") and name != "uplot.js"]

    for name in ours:
        script = (FOLDER / name).read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)


def test_foreign_files_have_their_licence() -> None:
    """The charting library stands beside its licence, its version and its source."""
    origin = (FOLDER / "uplot.ORIGIN.md").read_text(encoding="utf-8")

    assert "The MIT License" in (FOLDER / "uplot.LICENSE.txt").read_text(encoding="utf-8")
    assert re.search(r"uplot` \d+\.\d+\.\d+", origin)
    assert "https://github.com/leeoniya/uPlot" in origin
