"""Locks, held and lost, against real nodes."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from conftest import SOON, Cluster, eventually, free_ports

from ringmaster import AsyncClient, Client, Lock, LockHeld, LockLost, Problem, Unreachable


def waiters(client: Client, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/v1/locks/{name}")["waiters"]
    return found


def force_release(client: Client, name: str) -> None:
    plan = client.post("/v1/plans", {"action": {"type": "release_lock", "name": name}})
    operation = client.post(f"/v1/plans/{plan['id']}/apply", {})
    path = f"/v1/operations/{operation['id']}"
    eventually("the forced release", lambda: client.get(path)["status"] == "succeeded" or None)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, SOON))


def test_a_lock_is_held_by_one_and_tokens_grow(node: Cluster) -> None:
    with Client(node.urls) as client:
        with client.lock("one", owner="ann") as lock:
            assert 0 < lock.valid_for() <= 10
            lock.raise_if_lost()
            with pytest.raises(LockHeld) as held:
                client.lock("one", owner="ben").acquire()
            assert held.value.code == "lock_held"
            assert held.value.holder is not None and held.value.holder["owner"] == "ann"
        with client.lock("one", owner="ben") as next_lock:
            assert next_lock.token > lock.token
        assert lock.valid_for() == 0, "a lock that was released is not held"


def test_a_lock_is_renewed_for_as_long_as_it_is_needed(node: Cluster) -> None:
    with Client(node.urls) as client, client.lock("renewed", ttl=0.9) as lock:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            assert 0 < lock.valid_for() <= 0.9
            with pytest.raises(LockHeld):
                client.lock("renewed").acquire()
            time.sleep(0.1)


def test_threads_hold_it_one_at_a_time(node: Cluster) -> None:
    alone = threading.Lock()
    tokens: list[int] = []

    def work(client: Client) -> None:
        with client.lock("contended", wait=SOON) as lock:
            assert alone.acquire(blocking=False), "two hold it at once"
            tokens.append(lock.token)
            time.sleep(0.02)
            alone.release()

    with Client(node.urls) as client, ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, client) for _ in range(16)]:
            done.result()
    assert len(tokens) == 16 and tokens == sorted(tokens)


def test_after_a_wait_the_lease_is_fresh(node: Cluster) -> None:
    with Client(node.urls) as client, ThreadPoolExecutor(1) as threads:
        with client.lock("waited", ttl=1.2):
            waiting = threads.submit(client.lock("waited", ttl=1.2, wait=SOON).acquire)
            eventually("the queue", lambda: waiters(client, "waited") or None)
            time.sleep(1.5)
        lock = waiting.result(SOON)
        assert lock.valid_for() > 0.5
        lock.release()


def test_shared_and_limited(node: Cluster) -> None:
    with Client(node.urls) as client:
        with client.lock("shared", owner="a", shared=True), client.lock("shared", owner="b", shared=True):
            with pytest.raises(LockHeld):
                client.lock("shared", owner="c").acquire()
        with client.lock("slots", owner="a", limit=2), client.lock("slots", owner="b", limit=2):
            with pytest.raises(LockHeld):
                client.lock("slots", owner="c", limit=2).acquire()
            with pytest.raises(Problem) as refused:
                client.lock("slots", owner="c", limit=3).acquire()
            assert refused.value.code == "lock_limit_differs"
        with pytest.raises(ValueError):
            client.lock("x", shared=True, limit=2)


def test_a_forced_release_loses_the_lock(node: Cluster) -> None:
    losses: list[LockLost] = []
    with Client(node.urls) as client:
        with pytest.raises(LockLost):
            with client.lock("taken", ttl=1.5, on_lost=losses.append) as lock:
                force_release(client, "taken")
                eventually("the loss", lambda: lock.valid_for() == 0 or None)
                with pytest.raises(LockLost) as lost:
                    lock.raise_if_lost()
                assert "forced" in str(lost.value) and lost.value.code == "lock_lost"
        assert len(losses) == 1
        with client.lock("taken") as next_lock:
            assert next_lock.token > lock.token


def test_a_raised_exception_is_not_replaced(node: Cluster) -> None:
    with Client(node.urls) as client, pytest.raises(ZeroDivisionError):
        with client.lock("broken", ttl=1.5) as lock:
            force_release(client, "broken")
            eventually("the loss", lambda: lock.valid_for() == 0 or None)
            raise ZeroDivisionError


def test_a_resource_with_a_high_water_mark_rejects_stale_tokens(node: Cluster) -> None:
    high_water_mark = 0

    def write(token: int) -> None:
        nonlocal high_water_mark
        if token < high_water_mark:
            raise PermissionError(f"token {token} is stale; the mark is {high_water_mark}")
        high_water_mark = token

    with Client(node.urls) as client:
        paused = client.lock("fenced", ttl=60).acquire()
        write(paused.token)
        force_release(client, "fenced")
        with client.lock("fenced", wait=SOON) as lock:
            write(lock.token)
            # By its own count, the first holder still holds the lock.
            assert paused.valid_for() > 0
            with pytest.raises(PermissionError):
                write(paused.token)
        with pytest.raises(LockLost):
            paused.release()


def test_closing_a_client_releases_its_locks(node: Cluster) -> None:
    client = Client(node.urls)
    client.lock("left", ttl=60).acquire()
    client.close()
    with Client(node.urls) as other, other.lock("left"):
        pass


def test_an_unreachable_cluster_is_reported_at_once() -> None:
    [port] = free_ports(1)
    with Client(f"http://127.0.0.1:{port}") as client:
        began = time.monotonic()
        with pytest.raises(Unreachable) as unreachable:
            client.lock("x", wait=60).acquire()
        assert unreachable.value.code == "unreachable" and str(port) in str(unreachable.value)
        assert time.monotonic() - began < 3


def test_invalid_arguments_are_rejected_without_a_request() -> None:
    with pytest.raises(ValueError, match="looks like http://"):
        Client("127.0.0.1:7701")
    with Client("http://127.0.0.1:1") as client:
        for ttl in ["10s", None]:
            with pytest.raises(TypeError, match="ttl is a number of seconds"):
                client.lock("z", ttl=ttl)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="ttl is 0.1 to 86400 seconds, not -1"):
            client.lock("z", ttl=-1)
        with pytest.raises(ValueError, match="wait is 0 to 3600 seconds, not 99999"):
            client.lock("z", wait=99999)


def test_a_release_may_be_repeated(node: Cluster) -> None:
    with Client(node.urls) as client:
        lock = client.lock("twice", owner="ada")
        with pytest.raises(RuntimeError, match="is not acquired"):
            lock.release()
        lock.acquire()
        assert repr(lock) == f"<lock 'twice' of ada, token={lock.token}>"
        lock.release()
        lock.release()
        assert repr(lock) == "<lock 'twice' of ada, not held>"


def test_asyncio(node: Cluster) -> None:
    async def work() -> None:
        async with AsyncClient(node.urls) as client:
            inside = 0

            async def one() -> int:
                nonlocal inside
                async with client.lock("async", wait=SOON) as lock:
                    inside += 1
                    assert inside == 1, "two hold it at once"
                    await asyncio.sleep(0.01)
                    inside -= 1
                    return lock.token

            tokens = await asyncio.gather(*[one() for _ in range(10)])
            assert len(set(tokens)) == 10

    run(work())


def test_a_cancelled_wait_leaves_the_queue(node: Cluster) -> None:
    async def work() -> None:
        async with AsyncClient(node.urls) as client, client.lock("queue", owner="holder"):
            waiting = asyncio.ensure_future(client.lock("queue", wait=60).acquire())
            while not (await client.get("/v1/locks/queue"))["waiters"]:
                await asyncio.sleep(0.01)
            waiting.cancel()
            while (await client.get("/v1/locks/queue"))["waiters"]:
                await asyncio.sleep(0.01)

    run(work())


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "paused"])
def test_a_wait_continues_at_another_node(three: Cluster, kill: bool) -> None:
    with Client(three.urls[0]) as holder, Client(three.urls[1]) as first, Client(three.urls[2]) as second:
        with ThreadPoolExecutor(2) as threads:
            held = holder.lock("failover").acquire()
            locks = [first.lock("failover", owner="first", wait=60), second.lock("failover", owner="second", wait=60)]
            waiting = []
            for count, lock in enumerate(locks, 1):
                waiting.append(threads.submit(lock.acquire))
                eventually("the queue", lambda: len(waiters(holder, "failover")) == count or None)

            if kill:
                three.kill(1)
            else:
                three.signal(1, signal.SIGSTOP)

            def moved() -> bool | None:
                queue = waiters(holder, "failover")
                assert [each["owner"] for each in queue] == ["first", "second"], "every waiter keeps its place"
                return queue[0]["node"] in (1, 3) or None

            eventually("the first waiter to reconnect through another node", moved)
            held.release()
            tokens = []
            for future in waiting:
                lock = future.result(SOON)
                tokens.append(lock.token)
                lock.release()
            assert tokens == sorted(tokens) and len(set(tokens)) == 2
            if not kill:
                three.signal(1, signal.SIGCONT)


def test_without_a_quorum_a_lock_is_lost_in_time_and_for_good(three: Cluster) -> None:
    with Client(three.urls[2]) as client:
        lock: Lock = client.lock("quorum", ttl=2, owner="holder").acquire()
        for index in (0, 1):
            three.signal(index, signal.SIGSTOP)
        paused = time.monotonic()
        eventually("the loss", lambda: lock.valid_for() == 0 or None)
        assert time.monotonic() - paused < 2.5
        for index in (0, 1):
            three.signal(index, signal.SIGCONT)
        with client.lock("quorum", owner="next", wait=SOON) as next_lock:
            assert next_lock.token > lock.token
            assert lock.valid_for() == 0, "a lost lock does not come back"
            with pytest.raises(LockLost):
                lock.release()
            next_lock.raise_if_lost()
