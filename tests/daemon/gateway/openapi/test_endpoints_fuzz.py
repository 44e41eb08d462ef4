"""Requests at random: none fails inside the gateway, none is answered outside its API's shape.

`STOKER_FUZZ=20000 pytest tests/daemon/gateway/test_openapi_fuzz.py` is the long form: so many requests that are
nearly right, and a hundredth as many for each operation that are made from our own OpenAPI document.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from schemathesis.core.errors import InvalidSchema
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from structlog.testing import capture_logs

from stoker.daemon.gateway.openapi.document import document
from tests.fakes.http import Address, RawClient, connected, serving
from tests.fakes.judged import answering, judge
from tests.fakes.mutations import Mutant, mutant

LONG = int(os.environ.get("STOKER_FUZZ", "0"))
REQUESTS = LONG or 400
BY_DOCUMENT = max(LONG // 100, 4)
"""Made from the document, for each operation and kind: a quarter of a second each."""
SEED = 79288425
CLIENTS = 4

FITTING, NEARLY_FITTING = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE

schema = schemathesis.openapi.from_dict(json.loads(json.dumps(document())))
OPERATIONS = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
OPERATIONS = [operation for operation in OPERATIONS if operation.path != "/events"]  # it has no end
KINDS = [(operation, FITTING) for operation in OPERATIONS] + [
    (operation, NEARLY_FITTING)
    for operation in OPERATIONS
    if operation.body  # nothing else can be made wrong
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serving(answering())) as address:
        yield address.url


@pytest.fixture
def failures() -> Iterator[list[Any]]:
    """What the gateway logged of failures that nobody foresaw; there must be none."""
    with capture_logs() as logs:
        found: list[Any] = []
        yield found
    found += [entry for entry in logs if entry["event"] == "gateway.internal_error"]
    assert not found


@pytest.mark.timeout(max(120, REQUESTS // 10))
@pytest.mark.parametrize(("operation", "mode"), KINDS, ids=[f"{o.label} {m.value}" for o, m in KINDS])
def test_requests_made_from_the_document(
    url: str, failures: list[Any], operation: APIOperation[Any, Any, Any, Any], mode: schemathesis.GenerationMode
) -> None:
    """Whatever fits the document, or nearly does, is answered as the document says."""
    cases = operation.as_strategy(generation_mode=mode)

    @given(data=st.data())
    @settings(
        max_examples=BY_DOCUMENT,
        deadline=None,
        database=None,
        derandomize=not LONG,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(data: st.DataObject) -> None:
        try:
            case: schemathesis.Case[Any] = data.draw(cases)
        except InvalidSchema:
            reject()  # schemathesis made a schema wrong that it could then make nothing of
        response = case.call(base_url=url)
        media = response.headers["content-type"][0].partition(";")[0]
        judge(operation.path, response.status_code, media, response.content)
        case.validate_response(response, checks=[schemathesis.checks.response_schema_conformance])

    ask()


@pytest.mark.anyio
@pytest.mark.timeout(max(120, REQUESTS // 10))
async def test_requests_that_are_nearly_right(failures: list[Any]) -> None:
    """Valid requests, changed at random in JSON, bytes, method, path or headers, are served or refused properly."""
    random = Random(SEED)
    async with serving(answering()) as address:
        for _ in range(REQUESTS // CLIENTS):
            await asyncio.gather(*(_judged(address, mutant(random)) for _ in range(CLIENTS)))


async def _judged(address: Address, request: Mutant) -> None:
    async with connected(address) as client:
        try:
            await _ask(client, request)
        except Exception as error:
            error.add_note(f"{request.method} {request.path} {request.headers} {request.body[:2000]!r}")
            raise


async def _ask(client: RawClient, request: Mutant) -> None:
    headers = [("Host", "localhost"), *request.headers]
    await client.ask(request.method, request.path, request.body, headers)
    is_head = request.method == "HEAD"
    reply = await client.reply(to_head=is_head)
    if reply.status == 100:
        reply = await client.reply(to_head=is_head)
    media = reply.headers.get("content-type", "").partition(";")[0]
    judge(request.path, reply.status, media, reply.body, is_head=is_head)
