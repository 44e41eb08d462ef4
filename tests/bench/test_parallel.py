"""What is concluded from waves of requests."""

from __future__ import annotations

from bench import bare
from bench.load import Stream
from bench.parallel import Wave, firsts, rates
from bench.peer import NAME
from bench.rivals import STOKER
from stoker.bench.report import Section, Series


def stream(sent: float, first: float, ended: float, tokens: int) -> Stream:
    return Stream(sent, (sent + first, ended), ended, "Once", tokens)


def series(value: float, unit: str = "s") -> Series:
    return Series((value,), unit)


def missed(section: Section) -> list[str]:
    return [check.promise for check in section.checks if not check.ok]


def test_rate_is_of_the_whole_wave() -> None:
    """All tokens count, from the first request to the end of the last stream."""
    assert Wave((stream(10.0, 0.5, 12.0, 30), stream(10.5, 0.5, 15.0, 70))).rate == 20.0


def test_rates_are_judged_by_the_number_of_streams() -> None:
    """Equal is enough for one stream, a fifth more is asked of sixteen; nothing of numbers without a target."""
    equal = {STOKER: series(50, "tokens/s"), NAME: series(50, "tokens/s")}
    section = rates({1: equal, 2: equal, 16: equal})

    assert missed(section) == ["16 streams: at least 1.2x the tokens per second"]
    assert all(check.target for check in section.checks)
    assert section.rows[0][1:] == ("50.0 tokens/s", "50.0 tokens/s", "1.00x", "-", "-")


def test_rates_are_judged_by_what_the_model_gives() -> None:
    """A server that loses more than a fiftieth of what sixteen streams have without one misses a mark of its own."""
    without = series(100, "tokens/s")
    good, poor = ({STOKER: series(rate, "tokens/s"), bare.NAME: without} for rate in (98, 97))

    assert missed(rates({16: good})) == []
    assert missed(rates({16: poor})) == ["16 streams: at least 0.98x what the model gives without a server"]
    assert rates({16: poor}).rows[0][4:] == ("100 tokens/s", "0.97x")


def test_first_token_stands_beside_that_of_no_server() -> None:
    """How much sooner a first token comes than without a server is told, and judged by nothing."""
    section = firsts({1: {STOKER: series(2.0), bare.NAME: series(3.0)}}, 500)

    assert section.rows[0][4:] == ("3.00 s", "1.50x")
    assert section.data["results"][0]["ratio_to_bare"]["median"] == 1.5
    assert section.checks == ()


def test_first_tokens_must_come_sooner() -> None:
    """One request must have its first token 1.8 times sooner than the peer; several at once just sooner."""
    slower, sooner = {STOKER: series(1.0), NAME: series(1.7)}, {STOKER: series(1.0), NAME: series(1.1)}

    assert missed(firsts({1: slower, 4: sooner}, 500)) == ["1 at once: first token at least 1.8x sooner"]
    assert missed(firsts({4: {STOKER: series(1.1), NAME: series(1.0)}}, 500)) == ["4 at once: first token ahead"]


def test_without_a_peer_nothing_is_compared() -> None:
    """Alone, Stoker's figures are shown and no target is judged."""
    section = rates({1: {STOKER: series(50, "tokens/s")}})

    assert section.checks == ()
    assert section.rows == (("1", "50.0 tokens/s", "-", "-", "-", "-"),)
