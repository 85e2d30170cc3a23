"""Protects long work as jobs: they outlive a connection and a server, run once, and can be ended.

Real servers with a stand-in for the model answer; the second takes over the first one's file.
"""

import base64
import os
import threading

import httpx
import pytest
import uvicorn
from PIL import Image
from server import BOX, encoded, picture
from watching import eventually

from image2cad.common.errors import InputError
from image2cad.serving.api.routes import make_api
from image2cad.serving.api.stored_jobs import StoredJobs
from image2cad.serving.backends import Backend
from image2cad.serving.limits import Limits
from image2cad.serving.service import Service

LIMITS = Limits(running=1, waiting=4, jobs=3)


class Server:
    """A server with jobs in a file. `go` lets the model answer."""

    def __init__(self, file, limits=LIMITS, **options):
        self.go, self.asked = threading.Event(), 0
        self.service = Service(Backend("stub", self.propose), limits, workers=1)
        api = make_api(self.service, jobs_file=file, **options)
        config = uvicorn.Config(api, port=0, log_level="warning", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        assert eventually(lambda: self.server.started)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def propose(self, image, effort):
        self.asked += 1
        self.go.wait(60)
        return [BOX]

    def post(self, data=None, key=None, **fields):
        headers = {"Idempotency-Key": key} if key else {}
        headers |= {"Authorization": "Bearer mine"}
        return self.http.post(
            "/v1/jobs", files={"image": ("a bracket.png", data or picture())},
            data={"effort": "none", **fields}, headers=headers,
        )  # fmt: skip

    def get(self, name, **query):
        headers = {"Authorization": "Bearer mine"}
        return self.http.get(f"/v1/jobs/{name}", params=query, headers=headers)

    def cancel(self, name):
        headers = {"Authorization": "Bearer mine"}
        return self.http.post(f"/v1/jobs/{name}/cancel", headers=headers)

    def becomes(self, name, status):
        return eventually(lambda: self.get(name).json()["status"] == status, 120)

    def stop(self):
        self.server.should_exit = True
        self.thread.join(30)
        self.go.set()
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("jobs") / "jobs.sqlite"


def test_a_job_outlives_its_server(file):
    first = Server(file, keys=["mine", "theirs"])
    try:
        posted = first.post(key="one", files="step,py", length="80")
        job = posted.json()
        assert posted.status_code == 202 and posted.headers["location"] == f"/v1/jobs/{job['id']}"
        assert job["result"] is None and job["error"] is None and job["created"] > 0
        assert first.becomes(job["id"], "running") and eventually(lambda: first.asked == 1)
        assert first.get(job["id"]).json()["doing"] == "asking the model"
        assert first.get(job["id"], format="step").status_code == 409
        # The same request again, as after a lost connection, is the same job; another is not.
        again = first.post(key="one", files="step,py", length="80")
        assert again.status_code == 200 and again.json()["id"] == job["id"]
        other = first.post(key="one", files="step,py", length="81")
        assert other.status_code == 409 and other.json()["error"]["code"] == "conflict"
        headers = {"Authorization": "Bearer theirs", "Idempotency-Key": "one"}
        image = {"image": ("a.png", picture())}
        theirs = first.http.post("/v1/jobs", files=image, headers=headers).json()
        assert theirs["id"] != job["id"] and first.cancel(theirs["id"]).status_code == 200
        assert first.http.get(f"/v1/jobs/{job['id']}").status_code == 401
        with pytest.raises(InputError, match="locked"):  # one server at a time
            StoredJobs(first.service, file)
        waiting = first.post(key="two").json()
        assert waiting["status"] == "queued"
        gone = first.post(key="three").json()
        assert first.post().status_code == 429 and "retry-after" in first.post().headers
        assert first.cancel(gone["id"]).json()["status"] == "cancelled"
    finally:
        first.stop()
    second = Server(file, keys=["mine"])
    second.go.set()
    try:
        for name in (job["id"], waiting["id"]):
            assert second.becomes(name, "done")
        done = second.get(job["id"]).json()
        low, high = done["result"]["part"]["bounding_box"]
        assert max(b - a for a, b in zip(low, high, strict=True)) == pytest.approx(80)
        assert done["progress"] == 1 and done["ended"] >= done["created"]
        assert set(done["result"]["files"]) == {"step", "py"}
        step = second.get(job["id"], format="step")
        assert step.content == base64.b64decode(done["result"]["files"]["step"])
        assert 'filename="a bracket.step"' in step.headers["content-disposition"]
        assert second.get(gone["id"]).json()["status"] == "cancelled" and second.asked == 2
        once = second.post(key="one", files="step,py", length="80")
        assert once.status_code == 200 and once.json()["status"] == "done" and second.asked == 2
        # What is wrong is told at once where it can be seen, and else by the job.
        wrong = second.post(effort="odd")
        assert wrong.status_code == 422 and "effort" in wrong.json()["error"]["message"]
        assert second.post(b"hello").status_code == 422
        blank = second.post(encoded(Image.new("RGB", (99, 99), "red"))).json()
        assert second.becomes(blank["id"], "failed")
        error = second.get(blank["id"]).json()["error"]
        assert error["code"] == "invalid_input" and "blank" in error["message"]
        assert b"IHDR" not in file.read_bytes()  # of the pictures nothing is left
    finally:
        second.stop()


def test_a_cancelled_job_leaves_its_place(tmp_path):
    limits = Limits(running=1, waiting=1, jobs=2, jobs_bytes=300_000, jobs_seconds=1e-3)
    server = Server(tmp_path / "jobs.sqlite", limits)
    try:
        job = server.post().json()
        assert eventually(lambda: server.asked == 1)
        assert server.cancel(job["id"]).json()["status"] == "cancelled"
        # It is not kept for long here, and its place is free: with the model still waiting.
        assert eventually(lambda: server.get(job["id"]).status_code == 404)
        assert eventually(lambda: server.service.load()["pictures"] == (0, 0))
        assert server.cancel("none").status_code == 404
        large = encoded(Image.frombytes("RGB", (400, 300), os.urandom(360_000)))
        assert server.post(large).status_code == 429  # more than may be kept
    finally:
        server.stop()
    with pytest.raises(InputError, match="cannot be used"):
        (tmp_path / "text").write_text("no base of data " * 100)
        StoredJobs(server.service, tmp_path / "text")
    with pytest.raises(InputError, match="cannot be used"):
        StoredJobs(server.service, tmp_path / "nowhere" / "jobs.sqlite")
    assert (tmp_path / "jobs.sqlite").stat().st_mode & 0o077 == 0  # it holds what people sent
