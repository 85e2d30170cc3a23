"""The API under load: a closed loop of clients against a server that is started for it.

    python benchmarks/serving.py
    python benchmarks/serving.py --seconds 15

By default 8 clients execute and score programs and 2 turn pictures into programs, each sending
its next request when the last one is answered. Prints requests, 429s, errors and how long
answers took by route, and the memory of the server and of all its processes over time. Who gets
a 429 waits as long as it says, but no longer than a second.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from image2cad.common.gencad import read_programs  # noqa: E402

SAMPLES = ROOT / "data" / "samples" / "test"
START_SECONDS = 180
LONGEST_WAIT = 1.0  # seconds after a 429


def serve(port: int) -> None:
    """The server: nano model, limits as they come."""
    import logging

    import uvicorn

    from image2cad.serving import Service, local_backend, make_api

    logging.getLogger("image2cad.requests").addHandler(logging.NullHandler())
    api = make_api(Service(local_backend("models/nano")))
    uvicorn.run(api, port=port, log_level="warning", access_log=False)


class Tally:
    """Seconds and statuses by route, from many threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.statuses: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, route: str, status: str, seconds: float) -> None:
        with self.lock:
            self.statuses[route][status] += 1
            if status == "200":
                self.seconds[route].append(seconds)


def loop(base: str, number: int, makes_pictures: bool, until: float, tally: Tally) -> None:
    """One client until the time is over; the request that is under way is still counted."""
    rows = read_programs(SAMPLES)
    with httpx.Client(base_url=base, timeout=300) as client:
        turn = number
        while time.monotonic() < until:
            row, other = rows[turn % len(rows)], rows[(turn + 7) % len(rows)]
            turn += 1
            if makes_pictures:
                route, files = "/v1/generate", {"image": (SAMPLES / row["file_name"]).read_bytes()}
                request: dict[str, object] = {"files": files, "data": {"effort": "low"}}
            elif turn % 2:
                route, request = "/v1/execute", {"json": {"code": row["cadquery"]}}
            else:
                pair = {"prediction": row["cadquery"], "reference": other["cadquery"]}
                route, request = "/v1/score", {"json": pair}
            started = time.monotonic()
            try:
                answer = client.post(route, **request)  # type: ignore[arg-type]
                status = str(answer.status_code)
            except httpx.HTTPError as error:  # a lost request
                status = type(error).__name__
            tally.add(route, status, time.monotonic() - started)
            if status == "429":
                time.sleep(min(float(answer.headers["Retry-After"]), LONGEST_WAIT))


def memory(parent: int) -> tuple[float, float]:
    """MiB of the server itself, and of it with all processes below it, shared pages split."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    family, size = {parent}, 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, above in parents.items() if above in family}
    return share(parent), sum(map(share, family))


def share(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8, help="that execute and score")
    parser.add_argument("--pictures", type=int, default=2, help="clients that send pictures")
    parser.add_argument("--serve", type=int, help="(internal) be the server on this port")
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen([sys.executable, __file__, "--serve", str(port)], env=env)
    try:
        started = time.monotonic()
        while not is_ready(base):
            if server.poll() is not None or time.monotonic() - started > START_SECONDS:
                sys.exit("the server does not start")
            time.sleep(0.2)
        print(f"{os.cpu_count()} cores; ready after {time.monotonic() - started:.0f} s")
        load(base, options, server.pid)
    finally:
        server.terminate()
        server.wait(60)


def is_ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/ready").status_code == 200
    except httpx.HTTPError:
        return False


def load(base: str, options: argparse.Namespace, pid: int) -> None:
    """The load, and its table. Memory from a sixth of the time on, when all is warm."""
    tally, started = Tally(), time.monotonic()
    kinds = [False] * options.clients + [True] * options.pictures
    clients = [
        threading.Thread(target=loop, args=(base, number, kind, started + options.seconds, tally))
        for number, kind in enumerate(kinds)
    ]
    for client in clients:
        client.start()
    looks = []
    for share in (1 / 6, 1 / 2, 1):
        time.sleep(max(0.0, started + share * options.seconds - time.monotonic()))
        looks.append((time.monotonic() - started, *memory(pid)))
    for client in clients:
        client.join()
    for route, statuses in sorted(tally.statuses.items()):
        took = tally.seconds[route] or [float("nan")]
        p50, p95 = np.percentile(took, [50, 95])
        errors = sum(n for status, n in statuses.items() if status not in ("200", "429"))
        print(
            f"{route:13} {sum(statuses.values()):5} requests, {statuses['429']} times 429, "
            f"{errors} errors; p50 {p50:.2f} s, p95 {p95:.2f} s"
        )
        if errors:
            print(f"              {dict(statuses)}")
    for seconds, own, all_of_it in looks:
        print(
            f"memory after {seconds:3.0f} s: server {own:.0f} MiB, with workers {all_of_it:.0f} MiB"
        )


if __name__ == "__main__":
    main()
