"""The control socket's messages: public, so they only ever grow."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given

from stoker.ipc.control_messages import (
    Accepted,
    Changed,
    Counted,
    Document,
    Measurement,
    PrefixListing,
    PrefixStatus,
    Readiness,
    RewarmReport,
    StatusReport,
    VersionReport,
)
from stoker.ipc.control_requests import CONTROL_REQUESTS, WaitReady, WarmPin
from stoker.ipc.framing import Dialect, Frame, Request, decode, encode
from stoker.ipc.messages import Body, KnownPrefix, PrefixReport
from tests.fakes import wire_strategies as wire

SERVER = Dialect(requests=CONTROL_REQUESTS)
CLIENT = Dialect(notifications=[Changed])
DOCUMENTS: tuple[type[Document], ...] = (
    Readiness,
    StatusReport,
    Accepted,
    RewarmReport,
    PrefixListing,
    Counted,
    Measurement,
    VersionReport,
)

PROMISED_READY = {"ready", "phase", "warm", "reason", "generation", "since", "warmup"}
PROMISED_STATUS = PROMISED_READY | {"model", "worker", "restarts", "prefixes", "requests", "rates", "last_words"}


@given(wire.requests(*CONTROL_REQUESTS))
def test_requests_round_trip(frame: Frame) -> None:
    """Each request of a client is read by the daemon as it was."""
    assert decode(encode(frame)[:-1], SERVER) == frame


@given(wire.notifications(Changed))
def test_changed_round_trips(frame: Frame) -> None:
    """A watcher reads the snapshot that the daemon sent."""
    assert decode(encode(frame)[:-1], CLIENT) == frame


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_round_trip(document: type[Document]) -> None:
    """A result read as its type is what was sent."""

    @given(wire.values(document))
    def round_trip(value: Document) -> None:
        assert msgspec.json.decode(msgspec.json.encode(value), type=document) == value

    round_trip()


@pytest.mark.parametrize("request_type", [kind for kind in CONTROL_REQUESTS if kind is not WarmPin])
def test_requests_need_no_params(request_type: type[Body]) -> None:
    """A person with `nc -U` can send each method by its name alone, but the one that must say what to pin."""
    line = b'{"jsonrpc":"2.0","id":1,"method":"%s"}' % request_type.METHOD.encode()

    assert decode(line, SERVER) == Request(1, request_type())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_results_say_everything_and_no_kind(document: type[Document]) -> None:
    """Results carry every field, defaults too, and nothing that only our own client understands."""
    assert not document.__struct_config__.omit_defaults
    assert document.__struct_config__.tag is None


@pytest.mark.parametrize(
    ("document", "promised"), [(Readiness, PROMISED_READY), (StatusReport, PROMISED_STATUS)], ids=["ready", "status"]
)
def test_promised_fields_are_there(document: type[Document], promised: set[str]) -> None:
    """The fields that were promised to clients stay."""
    assert promised <= set(document.__struct_fields__)


def test_listed_prefixes_say_everything() -> None:
    """Each prefix of a listing carries all its fields, defaults too."""
    plain = KnownPrefix(name="system", origin="configured", tokens=9, tokens_warm=9)
    listing = msgspec.json.decode(msgspec.json.encode(PrefixListing(prefixes=(plain,))))

    assert set(listing["prefixes"][0]) == set(KnownPrefix.__struct_fields__)


def test_status_answers_all_of_ready() -> None:
    """Whoever reads `ready` can read `status`."""
    assert set(Readiness.__struct_fields__) <= set(StatusReport.__struct_fields__)


def test_prefix_status_is_the_public_form_of_a_report() -> None:
    """A worker's report of a prefix is passed on field by field."""
    report = PrefixReport(name="chat", tokens=9, tokens_warm=7, source="restored", seconds=0.5, note="short")

    assert msgspec.structs.asdict(PrefixStatus.of(report)) == msgspec.structs.asdict(report)


def test_wait_ready_has_a_bound_of_its_own() -> None:
    """A client that sets no timeout does not wait for ever."""
    assert WaitReady().timeout == 60.0


def test_methods_are_told_apart() -> None:
    """Each method's name stands for one request."""
    assert len({request.METHOD for request in CONTROL_REQUESTS}) == len(CONTROL_REQUESTS)
