"""The pool: instances on demand, the queue, crashes and idle instances."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.emulator.support import VIOLATION, Call, Inside, hello, run, stage, until
from tmpguard.emulator.http import pool as pool_module
from tmpguard.emulator.http.pool import ending
from tmpguard.emulator.protocols import Span, StartFailed


class Gate:
    """An application whose requests wait until they are let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.running = 0
        self.most = 0

    async def __call__(self, call: Call) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.open.wait()
        self.running -= 1
        await call.answer(call.target.encode())


async def settle() -> None:
    """Let everything happen that is about to."""
    for _ in range(20):
        await asyncio.sleep(0.002)


def test_instances_are_started_when_they_are_needed_and_not_before() -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(gate, instances=3, concurrency=2) as one:
            assert one.log.started == [0]
            requests = [asyncio.ensure_future(one.get(f"/{number}")) for number in range(2)]
            await until(lambda: gate.running == 2)
            await settle()
            assert one.log.started == [0]
            requests += [asyncio.ensure_future(one.get(f"/{number}")) for number in range(2, 9)]
            await until(lambda: gate.running == 6)
            await settle()
            assert (sorted(one.log.started), one.pool.waiting, one.pool.busy) == ([0, 1, 2], 3, 6)
            gate.open.set()
            bodies = {answer.body for answer in await asyncio.gather(*requests)}
            assert bodies == {b"/%d" % number for number in range(9)}
            assert (gate.most, one.pool.waiting, one.pool.busy) == (6, 0, 0)

    run(main())


def test_an_instance_is_told_when_it_begins_and_when_all_of_its_requests_are_over() -> None:
    async def main() -> None:
        gates: dict[str, asyncio.Event] = {"/1": asyncio.Event(), "/2": asyncio.Event()}

        async def handler(call: Call) -> None:
            await gates[call.target].wait()
            await call.answer()

        async with stage(handler, concurrency=2) as one:
            first, second = (asyncio.ensure_future(one.get(target)) for target in gates)
            await until(lambda: one.pool.busy == 2)
            [instance] = one.made
            assert instance.calls == ["begin"]
            instance.span = Span(4096, 4096, 1, (VIOLATION,), ())
            gates["/1"].set()
            await first
            assert instance.calls == ["begin", "measure"]
            gates["/2"].set()
            await second
            assert instance.calls == ["begin", "measure", "finish"]
            assert [done.span.violations for done in one.done] == [(VIOLATION,), ()]
            assert [done.shared for done in one.done] == [True, True]

    run(main())


def test_what_was_written_after_the_response_is_reported() -> None:
    async def main() -> None:
        async with stage() as one:
            await one.get()
            one.made[0].late = (VIOLATION,)
            await one.get()
            assert one.log.late == [(0, (VIOLATION,))]

    run(main())


def test_who_waits_for_too_long_is_answered_503_with_the_reason() -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(gate, queue_timeout=0.1) as one:
            first = asyncio.ensure_future(one.get())
            await until(lambda: one.pool.busy)
            answer = await one.get()
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "1"
            assert answer.body == (
                b"tmpguard: no instance was free within 0.1 s: 1 instance with 1 at once each ran 1, "
                b"and 0 more are waiting\n"
            )
            [done] = one.done
            assert (done.status, done.number) == (503, None)
            assert done.waited == pytest.approx(done.seconds, abs=0.01)
            gate.open.set()
            assert (await first).status == 200

    run(main())


def test_a_connection_is_kept_after_503() -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(gate, queue_timeout=0.1) as one:
            first = asyncio.ensure_future(one.get())
            await until(lambda: one.pool.busy)
            peer = await one.connect()
            for _ in range(2):
                peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await peer.answer()).status == 503
            gate.open.set()
            await first
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await peer.answer()).status == 200
            peer.close()

    run(main())


def test_the_queue_has_a_length() -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(gate, queue_length=2) as one:
            requests = [asyncio.ensure_future(one.get()) for _ in range(3)]
            await until(lambda: one.pool.waiting == 2)
            answer = await one.get()
            assert (answer.status, answer.body) == (
                503,
                b"tmpguard: 2 requests are waiting for an instance already\n",
            )
            gate.open.set()
            assert {one.status for one in await asyncio.gather(*requests)} == {200}

    run(main())


def test_idle_instances_end_but_one() -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(gate, instances=3, idle_timeout=0.2) as one:
            requests = [asyncio.ensure_future(one.get()) for _ in range(3)]
            await until(lambda: gate.running == 3)
            gate.open.set()
            await asyncio.gather(*requests)
            await until(lambda: len(one.pool.members) == 1)
            assert one.pool.members[0].number == 0
            assert {ended[1] for ended in one.log.ended} == {"it was idle for 0.2 s"}
            await asyncio.sleep(0.6)
            assert len(one.pool.members) == 1
            assert (await one.get()).status == 200

    run(main())


def test_findings_are_shared_by_all_that_ran_at_the_same_time() -> None:
    """Also by one that ran alone at its begin and at its end."""

    async def handler(call: Call) -> None:
        if call.target == "/long":
            await release.wait()
        await call.answer()

    async def main() -> None:
        async with stage(handler, concurrency=2) as one:
            await one.get("/before")
            long = asyncio.ensure_future(one.get("/long"))
            await until(lambda: one.pool.busy)
            await one.get("/short")
            release.set()
            await long
            await one.get("/after")
            shared = {done.target: done.shared for done in one.done}
            assert shared == {"/before": False, "/long": True, "/short": True, "/after": False}

    release = asyncio.Event()
    run(main())


def test_an_instance_that_ends_while_it_is_idle_is_replaced() -> None:
    async def main() -> None:
        async with stage() as one:
            await one.get()
            one.made[0].crash(1)
            await until(lambda: len(one.log.started) == 2)
            assert one.log.ended == [(0, "it ended with status 1", True)]
            assert (await one.get()).status == 200
            assert one.made[1].number == 0

    run(main())


def test_what_was_found_before_a_crash_is_that_request_s() -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(gate) as one:
            request = asyncio.ensure_future(one.get())
            await until(lambda: gate.running)
            one.made[0].span = Span(4096, 0, 0, (VIOLATION,), ())
            one.made[0].crash(-6)
            assert (await request).status == 502
            assert one.done[0].span.violations == (VIOLATION,)

    run(main())


def test_late_writes_are_found_when_an_instance_ends() -> None:
    async def main() -> None:
        async with stage() as one:
            await one.get()
            one.made[0].late = (VIOLATION,)
            await one.pool.stop()
            assert one.log.late == [(0, (VIOLATION,))]

    run(main())


def test_requests_that_wait_survive_a_crash() -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(gate) as one:
            requests = [asyncio.ensure_future(one.get(f"/{number}")) for number in range(4)]
            await until(lambda: gate.running)
            gate.open.set()
            one.made[0].crash(-11)
            answers = await asyncio.gather(*requests)
            assert sorted(answer.status for answer in answers) == [200, 200, 200, 502]

    run(main())


class Failing(Inside):
    """An instance that does not start for as long as the test says so."""

    works = False

    async def start(self) -> Span:
        if not Failing.works:
            raise StartFailed("exec", "no such command", output="sh: frobnicate: not found")
        return await super().start()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(Failing, "works", True)
    monkeypatch.setattr(pool_module, "_FIRST_PAUSE", 0.05)
    return lambda number: Failing(number, hello)


def test_an_application_that_does_not_start_any_more_is_tried_again(failing: Any) -> None:
    async def main() -> None:
        async with stage(make=failing) as one:
            assert (await one.get()).status == 200
            Failing.works = False
            one.made[0].crash(1)
            await until(lambda: len(one.log.failed) >= 2)
            answer = await one.get()
            assert answer.status == 503
            assert answer.body == b"tmpguard: the application does not start: exec: no such command\n"
            Failing.works = True
            await until(lambda: len(one.log.started) == 2)
            assert (await one.get()).status == 200

    run(main())


def test_an_instance_too_many_does_not_disturb_the_others(failing: Any) -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(make=lambda number: Failing(number, gate), instances=2) as one:
            first = asyncio.ensure_future(one.get())
            await until(lambda: gate.running)
            Failing.works = False
            second = asyncio.ensure_future(one.get())
            await until(lambda: one.log.failed)
            gate.open.set()
            assert [(await request).status for request in (first, second)] == [200, 200]

    run(main())


def test_the_first_instance_has_to_start(failing: Any) -> None:
    async def main() -> None:
        Failing.works = False
        with pytest.raises(StartFailed, match="exec: no such command"):
            async with stage(make=failing):
                pass

    run(main())


def test_a_changed_project_gets_new_instances_and_running_requests_end_in_the_old_ones() -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(gate) as one:
            first = asyncio.ensure_future(one.get())
            await until(lambda: gate.running)
            one.pool.replace()
            await until(lambda: len(one.log.started) == 2)
            second = asyncio.ensure_future(one.get())
            await until(lambda: gate.running == 2)
            assert one.log.ended == []
            gate.open.set()
            assert [(await request).status for request in (first, second)] == [200, 200]
            await until(lambda: one.log.ended)
            assert (one.log.ended[0][0], one.log.ended[0][2]) == (0, False)
            assert [member.number for member in one.pool.members] == [1]
            assert "stop" in one.made[0].calls

    run(main())


def test_the_end_refuses_what_waits_and_stops_all_instances() -> None:
    async def main() -> None:
        gate = Gate()
        async with stage(gate, instances=2) as one:
            requests = [asyncio.ensure_future(one.get()) for _ in range(3)]
            await until(lambda: gate.running == 2)
            stopping = asyncio.ensure_future(one.pool.stop())
            await until(lambda: one.done)
            assert (one.done[0].status, one.done[0].trouble) == (503, "tmpguard is ending")
            await stopping
            assert ["stop" in instance.calls for instance in one.made] == [True, True]
            for request in requests:
                request.cancel()

    run(main())


def test_how_a_process_ended() -> None:
    assert ending(3) == "it ended with status 3"
    assert ending(-11) == "it was killed by SIGSEGV"
    assert ending(-9) == "it was killed by SIGKILL (out of memory?)"
    assert ending(-100) == "it was killed by signal 100"
