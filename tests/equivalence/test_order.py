"""Which signals a wait has surely seen: small cases worked out by hand."""

from __future__ import annotations

from equivalence.order import SeenSignals, SyncTrace

A, B, C = range(3)
SEMAPHORE, OTHER = 0, 1


def trace() -> SyncTrace:
    return SyncTrace(agents=3, semaphores=2)


def test_a_wait_for_all_that_can_come_has_seen_all() -> None:
    sync = trace()
    sync.send(A, [SEMAPHORE])
    sync.send(B, [SEMAPHORE])
    sync.wait(C, SEMAPHORE, 2)
    assert SeenSignals.of(sync).waits[C] == [[(A, 1), (B, 1)]]


def test_a_wait_for_one_of_two_senders_has_seen_neither_surely() -> None:
    sync = trace()
    sync.send(A, [SEMAPHORE])
    sync.send(B, [SEMAPHORE])
    sync.wait(C, SEMAPHORE, 1)
    assert SeenSignals.of(sync).waits[C] == [[]]


def test_the_first_of_two_signals_of_one_sender_is_sure() -> None:
    sync = trace()
    sync.send(A, [SEMAPHORE])
    sync.send(A, [SEMAPHORE])
    sync.wait(C, SEMAPHORE, 1)
    sync.wait(C, SEMAPHORE, 1)
    assert SeenSignals.of(sync).waits[C] == [[(A, 1)], [(A, 2)]]


def test_what_is_sent_only_after_the_wait_cannot_be_taken_for_what_it_waits_for() -> None:
    """B sends after C has told it to, which C does after the wait: so the wait has seen A."""
    sync = trace()
    sync.send(A, [SEMAPHORE])
    sync.wait(C, SEMAPHORE, 1)
    sync.send(C, [OTHER])
    sync.wait(B, OTHER, 1)
    sync.send(B, [SEMAPHORE])
    sync.wait(C, SEMAPHORE, 1)
    assert SeenSignals.of(sync).waits[C] == [[(A, 1)], [(A, 1), (B, 1)]]


def test_without_that_order_the_wait_has_seen_neither() -> None:
    sync = trace()
    sync.send(A, [SEMAPHORE])
    sync.wait(C, SEMAPHORE, 1)
    sync.send(C, [OTHER])
    sync.send(B, [SEMAPHORE])
    sync.wait(B, OTHER, 1)
    assert SeenSignals.of(sync).waits[C] == [[]]
