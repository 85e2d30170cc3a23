"""Protects processes that can be stopped and the queue before them: no hanging, no orphans.

What hangs or crashes is replaced, who is turned away is told, and no process outlives its parent.
"""

import functools
import math
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from watching import alive, descendants, eventually

from image2cad.common.processes import Lost, Pool, each
from image2cad.common.stopping import Cancelled, Late, Stop
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

        with pytest.raises(Cancelled):
            pool.call(time.sleep, 1000, stop=Stop(wanted=lambda: False))
        with pytest.raises(Late, match=r"stopped after 0\.2 s"):
            pool.call(time.sleep, 1000, stop=Stop.after(0.2))
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


def test_a_call_that_meets_a_process_killed_while_idle_is_answered_by_another():
    pool = Pool(2)
    try:
        for _ in range(5):
            assert pool.call(math.factorial, 5) == 120 and eventually(pool.ready)
            for worker in pool._all:
                worker.process.kill()  # and no look at whether it is dead already
            assert [pool.call(math.factorial, 5) for _ in range(2)] == [120, 120]
    finally:
        pool.close()


class Unwelcome(Exception):
    """Pickled without a fault, but what comes out cannot be made again."""

    def __init__(self, one, two):
        super().__init__(one)


def answered(how):
    """Work whose answer cannot be sent, or read; or is half sent when its process dies."""
    if how == "unpicklable":
        return threading.Lock()
    if how == "unwelcome":
        raise Unwelcome(1, 2)
    if how == "half":
        multiprocessing.connection.Connection._send = lambda self, data: (
            os.write(self.fileno(), bytes(data)[:1000]),
            os._exit(3),
        )
        return bytes(1 << 20)
    return how


def test_an_answer_that_cannot_be_sent_or_read_costs_its_call_only():
    pool = Pool(1)
    try:
        for how in ("unpicklable", "unwelcome"):
            with pytest.raises(TypeError):
                pool.call(answered, how)
            assert pool.call(answered, "well") == "well"
        assert pool.call(answered, "half") == Lost("the process ended with 3")
        assert pool.call(answered, "well") == "well"
    finally:
        pool.close()


def slept(seconds):
    time.sleep(seconds)
    return seconds


def test_answers_come_in_the_order_in_which_they_end_and_who_stops_asking_stops_the_work():
    before = descendants(os.getpid())
    assert [index for index, _ in each(slept, [2.5, 0.0, 0.1], 2, 60)] == [1, 2, 0]
    answers = each(slept, [0.0, 1000.0, 1000.0, 1000.0], 2, 2000)
    assert next(answers) == (0, 0.0)
    answers.close()
    assert eventually(lambda: not descendants(os.getpid()) - before, 5)


def test_a_process_that_is_killed_while_it_starts_is_lost_as_any_other():
    pool = Pool(1, functools.partial(time.sleep, 1000))

    def killing():
        for worker in pool._all:
            worker.process.kill()
        return True

    try:
        lost = pool.call(math.factorial, 5, stop=Stop(wanted=killing))
        assert isinstance(lost, Lost) and "SIGKILL" in lost.reason
    finally:
        pool.close()
    broken = Pool(1, functools.partial(sys.exit, 3))
    try:
        with pytest.raises(RuntimeError, match="does not start: the process ended with 3"):
            broken.call(math.factorial, 5)
    finally:
        broken.close()


def test_guests_wait_behind_all_others_and_have_half_of_the_queue():
    queue, order, leave = Queue(running=1, waiting=5, seconds=60), [], threading.Event()

    def work(name, guest):
        with queue.place(guest=guest):
            order.append(name)
            leave.wait(30)

    threads = []
    for count, (name, guest) in enumerate([("a", 1), ("b", 1), ("c", 1), ("d", 0), ("e", 0)]):
        threads.append(threading.Thread(target=work, args=(name, bool(guest))))
        threads[-1].start()
        assert eventually(lambda n=count: queue.load() == (1, n))
    with pytest.raises(Busy), queue.place(guest=True):
        pass
    leave.set()
    for thread in threads:
        thread.join()
    assert order == ["a", "d", "e", "b", "c"] and queue.load() == (0, 0)
    for _ in range(5):  # what guests had is free again
        with queue.place(guest=True):
            pass


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

    gone = Stop(wanted=lambda: False)
    with short.place():
        with pytest.raises(Cancelled), short.place(gone):
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
