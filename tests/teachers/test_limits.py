"""Limits: buckets and width against slow plain versions, the gate against a clock."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.teachers.engines import limits
from magister.teachers.engines.limits import Bucket, EndpointDown, Gate, Health, Limits, Width, backoff


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.lists(st.floats(0, 5), min_size=1, max_size=50), st.booleans())
def test_no_minute_holds_more_requests_than_the_limit(limit, idle, greedy):
    clock = Clock()
    bucket = Bucket(limit, clock)
    sent = []
    for i in range(400):
        clock.now += 0 if greedy else idle[i % len(idle)]
        clock.now += bucket.wait(1) + 1e-9
        assert bucket.wait(1) == 0
        bucket.take(1)
        sent.append(clock.now)
    for i, start in enumerate(sent):
        assert sum(start <= t < start + 60 - 1e-3 for t in sent[i:]) <= limit
    if greedy and sent[-1] - sent[0] > 120:
        rate = len(sent) / (sent[-1] - sent[0]) * 60
        assert rate > 0.9 * limit, "the limit is used"


def test_a_bucket_is_corrected_by_what_was_used_and_lets_large_ones_pass_at_last():
    clock = Clock()
    bucket = Bucket(6000, clock)
    assert bucket.wait(300) == 0
    bucket.take(300)
    bucket.take(100 - 300)
    assert bucket.wait(200) == 0
    bucket.take(5000 - 4990)  # used more than estimated
    assert bucket.wait(200) == pytest.approx(10 / bucket.rate)
    clock.now += 60
    assert bucket.wait(100_000) == 0
    bucket.take(100_000)
    assert bucket.wait(1) > 900
    with pytest.raises(ValueError, match="a minute"):
        Bucket(0)


def test_width_doubles_a_round_trip_until_the_first_429_then_grows_by_one():
    width = Width(100)
    assert width.now == limits.START
    for _ in range(limits.START):
        width.success()
    assert width.now == 2 * limits.START
    assert width.slow_down(0)
    assert width.now == 24
    assert not width.slow_down(0), "the same burst"
    assert width.now == 24
    for _ in range(limits.RAISE_AFTER - 1):
        width.success()
    assert width.now == 24
    width.success()
    assert width.now == 25
    assert width.slow_down(1)
    assert width.now == 18


@given(st.integers(1, 200), st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=300))
def test_width_stays_between_one_and_the_most(most, events):
    width = Width(most)
    for good, back in events:
        width.success() if good else width.slow_down(max(0, width.cuts - back))
        assert 1 <= width.now <= most


@given(st.lists(st.sampled_from(["ok", "bad", "429"]), max_size=200))
def test_health_counts_like_a_plain_list(events):
    health, last, closed = Health(Clock()), [], False
    for event in events:
        if event == "ok":
            health.success()
            last = [] if closed else last
            closed = False
            last.append(0)
        elif event == "bad":
            health.error("x", "d")
            last.append(1)
            window = last[-limits.WINDOW :]
            closed = closed or (sum(window) >= limits.LEAST and 2 * sum(window) >= len(window))
        else:
            health.trouble("429")
        assert health.closed == closed
        assert health._bad == sum(last[-limits.WINDOW :])


def test_an_endpoint_is_given_up_soon_if_it_never_answered_and_late_if_it_did():
    clock = Clock()
    health = Health(clock)
    for _ in range(5):
        health.error("ConnectError", "refused", unreachable=True)
    assert not health.gone(300)
    health.failed_probes = limits.NEVER
    assert "5 x ConnectError" in health.gone(300)
    assert "5 of the last 5" in health.gone(300)
    assert "never answered" in health.gone(300)
    health.success()
    for _ in range(20):
        health.error("HTTP 503", "overloaded")
    assert health.closed
    assert not health.gone(300)
    clock.now += 301
    assert "no answer for 301 s" in health.gone(300)
    assert "overloaded" in health.gone(300)
    health.success()
    assert not health.closed
    assert not health.gone(300)


def test_backoff_is_full_jitter_and_capped():
    draws = [backoff(3) for _ in range(500)]
    assert 0 <= min(draws) < 0.3
    assert 1.7 < max(draws) <= 2.0
    assert max(backoff(900) for _ in range(50)) <= 30


def go(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_the_gate_bounds_what_is_under_way_and_keeps_the_order():
    async def scene():
        gate, order, most = Gate(Limits(3)), [], 0

        async def one(i):
            nonlocal most
            call = await gate.enter()
            order.append(i)
            most = max(most, gate.under_way)
            await asyncio.sleep(0.002)
            gate.success()
            gate.leave(call)

        await asyncio.gather(*(one(i) for i in range(20)))
        return order, most, gate.under_way

    assert go(scene()) == (list(range(20)), 3, 0)


def test_a_429_makes_everyone_wait_and_the_burst_cuts_once(caplog):
    async def scene():
        gate = Gate(Limits(16), "host")
        first = [await gate.enter() for _ in range(16)]
        for call in first:
            gate.slow_down(call, 0.2, "slow down")
            gate.leave(call)
        started = time.monotonic()
        await gate.enter()
        return gate.limits.width.now, time.monotonic() - started

    width, waited = go(scene())
    assert width == 12
    assert 0.15 <= waited < 2
    (said,) = [r.message for r in caplog.records]
    assert "16 -> 12" in said
    assert "Retry-After 0.2 s" in said


def test_a_closed_gate_lets_one_probe_through_and_opens_on_its_answer(monkeypatch):
    monkeypatch.setattr(limits, "backoff", lambda *_: 0.05)

    async def scene():
        gate = Gate(Limits(16))
        gate.limits.health.ever = True
        for call in [await gate.enter() for _ in range(limits.LEAST)]:
            gate.error(call, "HTTP 500", "oops")
            gate.leave(call)
        assert gate.closed
        waiting = [asyncio.ensure_future(gate.enter()) for _ in range(5)]
        await asyncio.sleep(0.4)
        probing = gate.under_way
        gate.success()
        gate.leave(waiting[0].result())
        await asyncio.gather(*waiting)
        return probing, gate.under_way, gate.closed

    assert go(scene()) == (1, 4, False)


def test_an_older_call_that_hangs_neither_holds_up_the_probe_nor_ends_the_run(monkeypatch):
    monkeypatch.setattr(limits, "backoff", lambda *_: 0.0)

    async def scene():
        gate = Gate(Limits(16, patience=0.05))
        gate.limits.health.ever = True
        hanging, *failing = [await gate.enter() for _ in range(limits.LEAST + 2)]
        for call in failing[:-1]:
            gate.error(call, "HTTP 500", "restarting")
            gate.leave(call)
        assert gate.closed
        await asyncio.sleep(0.1)  # longer than the patience, but nobody was asked
        gate.error(failing[-1], "HTTP 500", "restarting")
        gate.leave(failing[-1])
        assert gate.stopped is None
        probe = await asyncio.wait_for(gate.enter(), 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gate.enter(), 0.2)
        gate.error(probe, "HTTP 500", "still down")
        gate.leave(probe)
        assert gate.under_way == 1
        gate.leave(hanging)
        return gate.stopped

    assert "still down" in str(go(scene()))


def test_a_stopped_gate_turns_all_away():
    async def scene():
        gate = Gate(Limits(1))
        await gate.enter()
        waiting = asyncio.ensure_future(gate.enter())
        await asyncio.sleep(0)
        gate.stop(EndpointDown("gone"))
        with pytest.raises(EndpointDown, match="gone"):
            await waiting
        with pytest.raises(EndpointDown):
            await gate.enter()

    go(scene())


def test_requests_a_minute_hold_in_real_time():
    async def scene():
        gate = Gate(Limits(8, rpm=1200))  # 60 at once, then 19 a second
        started = time.monotonic()
        for _ in range(70):
            gate.leave(await gate.enter())
        return time.monotonic() - started

    assert 0.45 <= go(scene()) < 5


def test_a_cancelled_waiter_does_not_hold_up_the_line():
    async def scene():
        gate = Gate(Limits(1))
        first = await gate.enter()
        one, two = asyncio.ensure_future(gate.enter()), asyncio.ensure_future(gate.enter())
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.sleep(0)
        gate.leave(first)
        await two
        return gate.under_way

    assert go(scene()) == 1
