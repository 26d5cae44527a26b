"""Names asked for: whose they are, what they cost, which may go."""

from __future__ import annotations

from ztunnel.supervisor.name_book import (
    BURST,
    FRESH_S,
    FULL_S,
    LIFE_S,
    NOWHERE_LIFE_S,
    QUEUE_MAX,
    RATE_PER_S,
    NameBook,
    Wanted,
)


def answered(book: NameBook, pod: str, *names: str, now_s: float = 0.0) -> None:
    assert book.want(pod, names, now_s).ask == list(names)
    assert book.told(names, set(names), now_s) == list(names)


def numbered(count: int, start: int = 0) -> list[str]:
    return [f"/n{number}" for number in range(start, start + count)]


def test_a_name_is_asked_for_once_whoever_wants_it() -> None:
    book = NameBook()
    assert book.want("a", ["/x", "/x"], 0).ask == ["/x"]
    assert book.want("b", ["/x"], 0) == Wanted()
    assert book.told(["/x", "/y"], set(), 0) == ["/x"], "nobody asked for the other"
    assert book.told(["/x"], set(), 0) == []
    assert book.want("c", ["/x"], 0) == Wanted()


def test_a_full_share_gives_back_its_own_least_used_names() -> None:
    book = NameBook(share_max=8)
    answered(book, "honest", "/h")
    answered(book, "scanner", *numbered(8))
    book.used(numbered(4), FRESH_S)
    found = book.want("scanner", ["/more"], 2 * FRESH_S - 1)
    assert (found.ask, found.give_back, found.refused) == (["/more"], ["/n4"], [])
    assert book.answered("/h")


def test_what_was_just_used_does_not_go_and_the_new_one_is_refused() -> None:
    book = NameBook(share_max=8)
    answered(book, "scanner", *numbered(8))
    assert book.want("scanner", ["/more"], FRESH_S / 2).refused == ["/more"]
    assert book.want("honest", ["/more"], FRESH_S / 2).ask == ["/more"]
    assert book.want("scanner", ["/other"], FRESH_S / 2 + FULL_S - 0.1).refused == ["/other"]
    assert book.want("scanner", ["/other"], FRESH_S + FULL_S).ask == ["/other"]


def test_where_the_node_is_full_whoever_has_most_pays() -> None:
    book = NameBook(names_max=8)
    answered(book, "honest", "/h1", "/h2")
    answered(book, "scanner", *numbered(6))
    found = book.want("honest", ["/h3"], FRESH_S)
    assert found.ask == ["/h3"]
    assert set(found.give_back) <= set(numbered(6))
    assert book.answered("/h1")
    assert book.answered("/h2")


def test_names_wait_for_their_turn_and_the_queue_is_bounded() -> None:
    book = NameBook()
    burst = int(BURST)
    found = book.want("p", numbered(burst + QUEUE_MAX + 1), 0)
    assert len(found.ask) == burst
    assert found.refused == [f"/n{burst + QUEUE_MAX}"]
    assert book.has_queued
    assert book.due(0) == []
    assert book.due(10 / RATE_PER_S) == numbered(10, burst)
    assert len(book.due(10)) == QUEUE_MAX - 10
    assert not book.has_queued


def test_nobody_waits_in_the_queue_of_another() -> None:
    book = NameBook()
    book.want("scanner", numbered(int(BURST) + 10), 0)
    last = f"/n{int(BURST) + 9}"
    assert book.want("honest", [last], 0).ask == [last]
    assert last not in book.due(10)


def test_spare_names_take_no_room_from_others() -> None:
    book = NameBook(share_max=4)
    answered(book, "p", *numbered(4))
    assert book.want("p", ["/peer"], 10 * FRESH_S, spare=True) == Wanted()
    assert book.want("other", ["/peer"], 0, spare=True).ask == ["/peer"]


def test_unused_names_go_and_those_that_lead_nowhere_earlier() -> None:
    book = NameBook()
    book.want("p", ["/pod", "/outside", "/asked"], 0)
    book.told(["/pod", "/outside"], {"/pod"}, 0)
    assert book.idle(NOWHERE_LIFE_S - 1) == []
    assert book.idle(NOWHERE_LIFE_S) == ["/outside"]
    book.used(["/pod"], NOWHERE_LIFE_S)
    assert book.idle(LIFE_S) == []
    assert book.idle(LIFE_S + NOWHERE_LIFE_S) == ["/pod"]
    assert list(book.gone(["/pod", "/outside"])) == []
    assert len(book) == 1, "a name without an answer stays: nobody knows what it leads to"


def test_a_name_that_is_wanted_while_it_leaves_is_asked_for_again() -> None:
    book = NameBook()
    answered(book, "p", "/x")
    assert book.idle(LIFE_S) == ["/x"]
    assert book.want("q", ["/x"], LIFE_S) == Wanted(), "not before the workers know"
    assert list(book.gone(["/x"])) == [("q", "/x")]
    assert book.want("q", ["/x"], LIFE_S).ask == ["/x"]


def test_names_of_a_pod_that_has_left_stay_while_others_use_them() -> None:
    book = NameBook(share_max=2)
    answered(book, "p", "/x", "/y")
    book.keep({"q"})
    assert book.answered("/x")
    answered(book, "p", "/z", now_s=1.0)
    assert book.idle(LIFE_S) == ["/x", "/y"]


def test_a_pod_that_leaves_takes_its_queue_along() -> None:
    book = NameBook()
    book.want("p", numbered(int(BURST) + 1), 0)
    book.keep(())
    assert book.due(10) == []
    assert book.counts()["queued"] == 0
