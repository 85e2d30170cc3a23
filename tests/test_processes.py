"""Protects processes that can be stopped and the queue before them: no hanging, no orphans.

What hangs or crashes is replaced, who is turned away is told, and no process outlives its parent.
"""

import functools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from watching import alive, descendants, eventually

from image2cad.common.processes import Lost, Pool
from image2cad.serving.limits import Busy, Queue


def test_a_pool_survives_what_its_calls_do():
    before = descendants(os.getpid())
    pool = Pool(2)
    try:
        assert pool.call(math.factorial, 5) == 120
        first = {pool.call(os.getpid) for _ in range(4)}
        with pytest.raises(ValueError, match="factorial"):
            pool.call(math.factorial, -1)
        assert {pool.call(os.getpid) for _ in range(4)} == first  # what raises costs no process
        died = pool.call(os._exit, 3)
        assert isinstance(died, Lost) and "ended with 3" in died.reason
        killed = pool.call(signal.raise_signal, signal.SIGKILL)
        assert isinstance(killed, Lost) and "SIGKILL" in killed.reason

        def stop():
            raise KeyError("stopped")

        with pytest.raises(KeyError):
            pool.call(time.sleep, 1000, check=stop)
        assert pool.call(math.factorial, 5) == 120 and pool.ready()
        idle = (descendants(os.getpid()) - before).pop()
        os.kill(idle, signal.SIGKILL)  # as a system does that is short of memory
        assert eventually(lambda: not alive(idle))
        answers = [pool.call(math.factorial, 5) for _ in range(4)]
        assert answers == [120] * 4
        # More calls than processes: all are answered, from as many threads.
        got, threads = [], []
        for number in range(12):
            call = threading.Thread(target=lambda n=number: got.append(pool.call(math.sqrt, n)))
            threads.append(call)
            call.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [math.sqrt(n) for n in range(12)]
        # Closing ends a call that is under way.
        lost = []
        sleeper = threading.Thread(target=lambda: lost.append(pool.call(time.sleep, 1000)))
        sleeper.start()
        time.sleep(0.5)
    finally:
        pool.close()
    sleeper.join(30)
    assert isinstance(lost[0], Lost) and not pool.ready()
    assert eventually(lambda: not descendants(os.getpid()) - before)
    with pytest.raises(RuntimeError, match="closed"):
        pool.call(os.getpid)


def test_processes_that_die_while_idle_are_replaced_without_a_call():
    pool = Pool(2)
    try:
        assert eventually(pool.ready)
        idle = [worker.process.pid for worker in pool._all]
        for pid in idle:
            os.kill(pid, signal.SIGKILL)  # as a system does that is short of memory
        assert eventually(lambda: not any(map(alive, idle)))
        assert eventually(pool.ready, 30)
        assert pool.call(math.factorial, 5) == 120
    finally:
        pool.close()
    pool.ready()  # replaces nothing any more
    assert not any(worker.process.is_alive() for worker in pool._all)


def test_a_process_that_is_killed_while_it_starts_is_lost_as_any_other():
    pool = Pool(1, functools.partial(time.sleep, 1000))

    def kill():
        for worker in pool._all:
            worker.process.kill()

    try:
        lost = pool.call(math.factorial, 5, check=kill)
        assert isinstance(lost, Lost) and "SIGKILL" in lost.reason
    finally:
        pool.close()
    broken = Pool(1, functools.partial(sys.exit, 3))
    try:
        with pytest.raises(RuntimeError, match="does not start: the process ended with 3"):
            broken.call(math.factorial, 5)
    finally:
        broken.close()


def test_a_queue_is_bounded_and_keeps_the_order():
    queue, order, leave = Queue(running=1, waiting=2, seconds=60), [], threading.Event()

    def work(name):
        with queue.place():
            order.append(name)
            leave.wait(30)

    threads = []
    for count, name in enumerate("abc"):
        threads.append(threading.Thread(target=work, args=(name,)))
        threads[-1].start()
        assert eventually(lambda n=count: queue.load() == (1, n))
    with pytest.raises(Busy) as refused, queue.place():
        pass
    assert refused.value.retry_after >= 1
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["a", "b", "c"] and queue.load() == (0, 0)
    # Whoever gives up, or has waited too long, leaves the line to the others.
    short = Queue(running=1, waiting=2, seconds=0.3)

    def gone():
        raise KeyError

    with short.place():
        with pytest.raises(KeyError), short.place(gone):
            pass
        with pytest.raises(Busy), short.place():
            pass
        assert short.load() == (1, 0)
    with short.place():
        pass


def test_nothing_outlives_a_server_that_is_killed():
    program = """
import os, sys, threading, time
from image2cad.common.processes import Pool
from metrics.sandbox import client
from metrics.execution import run_cadquery
if __name__ == "__main__":
    pool = Pool(1)
    threading.Thread(target=pool.call, args=(run_cadquery, "while True: pass", 300)).start()
    print("started", flush=True)
    time.sleep(300)
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=env)
    try:
        assert server.stdout.readline() == b"started\n"
        # worker, its warm process, a warden, the program
        assert eventually(lambda: len(descendants(server.pid)) >= 4, 60)
        below = descendants(server.pid)
    finally:
        server.kill()
        server.communicate()
    assert eventually(lambda: not any(map(alive, below)))
