"""The order of the line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stoker.daemon.waiting_room import Ticket, WaitingRoom


def room(*tickets: Ticket) -> WaitingRoom:
    """A room with these in it."""
    made = WaitingRoom()
    for ticket in tickets:
        made.enter(ticket)
    return made


def test_first_come_first_served() -> None:
    """Requests stand in the order of their arrival, however they enter."""
    tickets = [Ticket(number, 0.0) for number in (3, 1, 2)]

    assert [ticket.arrival for ticket in room(*tickets)] == [1, 2, 3]


def test_resumed_go_first() -> None:
    """Requests that lost a worker go before new ones, and among themselves in the order of their arrival."""
    tickets = [Ticket(1, 0.0), Ticket(9, 0.0, resumed=True), Ticket(5, 0.0, resumed=True)]

    assert [ticket.arrival for ticket in room(*tickets)] == [5, 9, 1]


def test_place() -> None:
    """Who enters hears how many are ahead, and less when one of them leaves."""
    line = room(Ticket(1, 0.0), leaver := Ticket(2, 0.0))
    assert line.enter(last := Ticket(3, 0.0)) == 2

    line.leave(leaver)
    assert line.ahead(last) == 1
    assert (leaver.queued, last.queued) == (False, True)


def test_nobody_overtakes_the_head() -> None:
    """If the first may not go, nobody does; each that goes is asked about anew."""
    tickets = [Ticket(number, 0.0) for number in range(4)]
    line = room(*tickets)

    assert list(line.go(lambda ticket: ticket.arrival != 2)) == tickets[:2]
    assert list(line) == tickets[2:]
    assert [ticket.queued for ticket in tickets] == [False, False, True, True]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 99)), unique_by=lambda pair: pair[1]))
def test_order_does_not_depend_on_entering(entries: list[tuple[bool, int]]) -> None:
    """The line is sorted by rank after any entries, and everyone's place is its index."""
    tickets = [Ticket(arrival, 0.0, resumed=resumed) for resumed, arrival in entries]
    line = room(*tickets)

    assert [ticket.rank for ticket in line] == sorted(ticket.rank for ticket in tickets)
    assert [line.ahead(ticket) for ticket in line] == list(range(len(tickets)))
