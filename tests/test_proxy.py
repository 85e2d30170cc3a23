"""Protects deploy/nginx.conf: page and API work below a path of a real nginx.

The file runs as it stands, but for its ports and TLS. Skipped where there is no nginx.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from test_operating import BOX, KEY, PICTURE, Server, server
from watching import eventually

__all__ = ["server"]  # a fixture: it is started with the root path /cad

ROOT = Path(__file__).resolve().parent.parent
CONF = (ROOT / "deploy/nginx.conf").read_text()
AROUND = """
pid {folder}/pid; error_log {folder}/error.log; daemon off; worker_processes 1; {user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {conf}
}}
"""


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the server behind nginx."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None:
        pytest.skip("no nginx here (apt-get install nginx)")
    folder = tmp_path_factory.mktemp("nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = CONF.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    conf = re.sub(r"^\s*ssl_.*\n", "", conf, flags=re.M)
    conf = conf.replace("http://127.0.0.1:7860/", f"{server.url}/")
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(AROUND.format(folder=folder, user=user, conf=conf))
    command = [nginx, "-c", str(file), "-p", str(folder), "-e", str(folder / "error.log")]
    process = subprocess.Popen(command)
    try:
        address = f"http://127.0.0.1:{port}/cad/"

        def up() -> bool:
            try:
                return httpx.get(f"{address}health").is_success
            except httpx.TransportError:
                return False

        assert eventually(up), (folder / "error.log").read_text()
        yield address
    finally:
        process.terminate()
        process.wait()


def test_the_api_works_below_a_path(proxy: str) -> None:
    bearer = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=proxy, headers=bearer, timeout=120) as client:
        made = client.post("v1/execute", json={"code": BOX})
        assert made.json()["part"]["volume"] == pytest.approx(6)
        sent = {"image": PICTURE.read_bytes()}
        job = client.post("v1/jobs", data={"effort": "none"}, files=sent)
        where = httpx.URL(proxy).join(job.headers["location"])  # as clients read it
        assert eventually(lambda: client.get(where).json()["status"] == "done", 60)
        docs = client.get("docs").text
        for file in re.findall(r"(?:src|href)=\"([^\"]+)\"|url: '([^']+)'", docs):
            assert client.get(httpx.URL(proxy).join("".join(file))).is_success, file
        assert client.get("metrics").status_code == 404  # not for who comes through the proxy
    named = {"Host": "cad.example.org", **bearer}
    assert httpx.get(f"{proxy}v1/models", headers=named).is_success
    named["Host"] = "elsewhere.example"
    assert httpx.get(f"{proxy}v1/models", headers=named).status_code == 400
    large = httpx.post(f"{proxy}v1/generate", headers=bearer, files={"image": bytes(200_000)})
    assert large.status_code == 413 and "100,000 are allowed" in large.json()["error"]["message"]


def test_the_page_works_below_a_path(proxy: str) -> None:
    with httpx.Client(follow_redirects=True, timeout=60) as visitor:
        form = visitor.get(proxy)
        assert form.status_code == 401 and 'action="login"' in form.text
        html = {"Accept": "text/html", "Origin": proxy.removesuffix("/cad/")}
        page = visitor.post(f"{proxy}login", data={"password": KEY}, headers=html)
        assert page.is_success and str(page.url) == proxy and "gradio_config" in page.text
        (cookie,) = visitor.cookies.jar
        assert cookie.path == "/cad"
        assert visitor.get(f"{proxy}config").json()["root"] == proxy.removesuffix("/")
        for file in set(re.findall(r"(?:src|href)=\"(\./assets/[^\"]+)\"", page.text)):
            assert visitor.get(httpx.URL(proxy).join(file)).is_success, file
    client = Client(proxy, auth=("any", KEY), verbose=False)  # with uploads and the queue's stream
    found = client.predict(handle_file(PICTURE), "none", api_name="/generate")
    assert "cadquery" in found["code"]
    client.close()
