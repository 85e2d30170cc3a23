"""The web app and the HTTP API, in one process.

    python app.py                                       # offline, with the bundled nano model
    python app.py --model runs/colab_training-001/adapter --port 8000
    python app.py --backend-url http://gpu-box:8000/v1 --backend-model llava-cad

The page is at /, the API's documentation at /docs. Every flag has a variable in the environment:
--port is IMAGE2CAD_PORT; a flag goes before it. Keys come from the environment or a file, never
from flags, which other users of a machine can see: IMAGE2CAD_KEYS="one,another" or --key-file asks
for one of them in the API and at the page's door, IMAGE2CAD_BACKEND_KEY is sent to --backend-url.
Runs on Hugging Face Spaces as it is, ZeroGPU included. Left out: TLS, which belongs to a proxy in
front.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import ipaddress
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from image2cad.common import InputError, at_least, read_flags, run_cli

if TYPE_CHECKING:
    from PIL import Image

    from image2cad.serving import Backend, Keys, Service

HOST = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")  # Spaces say 0.0.0.0
PORT = 7860  # 0: any free one
MODEL = "models/nano"  # a base or an adapter: a folder or a name on the hub
LOAD_IN_4BIT = False  # store the model in 4 bits
BACKEND_URL: str | None = None  # of an OpenAI-compatible server, in place of a model here
BACKEND_MODEL: str | None = None  # its model
BACKEND_GENERAL = False  # that model was not trained on this project's question: tell it more
SERVED_MODEL_NAME: str | None = None  # what the API calls the model; None: its own name
HOSTS: str | None = (
    None  # "example.org,another.org": where the API may fetch pictures; else data URLs only
)
# "cad.example.org,*.another.org": names of this server beside those of its machine, "*" any
NAMES: str | None = "*" if "SPACE_ID" in os.environ else None
# "https://example.org": other sites, whose pages may send to this server and show it in a frame
ORIGINS: str | None = "https://huggingface.co" if "SPACE_ID" in os.environ else None
ROOT_PATH = ""  # "/cad": where a proxy in front shows this server, if not at /
# Proxies whose X-Forwarded-For and -Proto are believed, as uvicorn takes it; None: on this machine
FORWARDED_ALLOW_IPS: str | None = os.environ.get("FORWARDED_ALLOW_IPS")
KEY_FILE: str | None = None  # a key a line; read when it changes
# "waiting=4,body_seconds=30": those limits that shall differ (image2cad/serving/limits.py)
LIMITS: str | None = None
JOBS: str | None = None  # a file that keeps /v1/jobs through a restart
WORKERS: int | None = None  # pictures worked on at a time, one core each; None: all cores
OPEN_PAGE = False  # where there are keys: whether the page asks for none
GRACE = 10  # seconds that requests may take to end when the server stops
LOG_LEVEL = "info"  # or debug, warning, error

GPU_SECONDS = {"none": 30, "low": 60, "high": 120}  # asked of ZeroGPU, for each effort

_VARIABLES = "IMAGE2CAD_"  # how those begin that stand for flags
KEY_VARIABLES = ("IMAGE2CAD_KEYS", "IMAGE2CAD_BACKEND_KEY")
LOG_LEVELS = ("debug", "info", "warning", "error")

# Heavy imports are inside the functions: worker processes import this file too.


def main() -> None:
    """Serve until interrupted."""
    settings = checked(read_flags(__doc__, globals(), _VARIABLES))
    from image2cad.serving import json_log

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as Ctrl-C: with all that is cleaned up
    place = settings.host, settings.port
    given = os.environ.get("GRADIO_TEMP_DIR")
    if given:
        os.makedirs(given, exist_ok=True)
    folder = tempfile.TemporaryDirectory(prefix="image2cad-", dir=given or None)
    with folder as files, listen(*place) as listener, json_log(settings.log_level) as stdout:
        os.environ["GRADIO_TEMP_DIR"] = files  # uploads go when the server stops
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ.setdefault("GRADIO_HEARTBEAT_INTERVAL", "5")  # seconds to see that one has left
        if needs_no_hub(settings.model):
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        warn_of_strange_variables(settings)
        keys, names = known_keys(settings), own_names(settings)
        gpu = gpu_decorator()  # imports `spaces`, which has to come before torch
        service = make_service(settings, gpu)
        try:
            serve(service, settings, listener, keys, names, Path(files), stdout)
        finally:
            service.close()


def checked(settings: Any) -> Any:
    """The settings, with the root path as it is used. Raises InputError for what cannot be used."""
    at_least(settings, {"port": 0, "workers": 1, "grace": 0})
    if settings.log_level not in LOG_LEVELS:
        raise InputError(
            f"--log-level is one of {', '.join(LOG_LEVELS)}, not {settings.log_level!r:.100}"
        )
    path = settings.root_path.strip("/")
    if path and not re.fullmatch(r"[\w.~-]+(/[\w.~-]+)*", path):
        raise InputError(f"--root-path is a path such as /cad, not {settings.root_path!r:.100}")
    settings.root_path = f"/{path}" if path else ""
    return settings


def warn_of_strange_variables(settings: Any) -> None:
    """Tell of what looks like a setting and is none: a key file by a wrong name leaves a server
    open.
    """
    known = {*KEY_VARIABLES, *(_VARIABLES + name.upper() for name in vars(settings))}
    for name in sorted(os.environ):
        if name.startswith(_VARIABLES) and name not in known:
            warn(f"{name} is no setting of this server; --help names those that are")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens already, so that a port in use is told before a model is loaded.

    Raises InputError if that cannot be.
    """
    if port > 65535:  # getaddrinfo would take another in its place
        raise InputError(f"--port must be at most 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (socket.gaierror, UnicodeError) as error:
        raise InputError(f"--host {host} is no address of this machine") from error
    except OSError as error:
        why = error.strerror
        if error.errno == errno.EADDRINUSE:
            why = "it is in use; stop what runs there, or name another with --port"
        raise InputError(f"cannot listen on port {port} of {host}: {why}") from error
    return listener


def needs_no_hub(model: str) -> bool:
    """Whether `model` is a whole base in a folder. An adapter may name a base on the hub."""
    folders = (Path(model), Path(__file__).resolve().parent / model)
    return any((folder / "config.json").is_file() for folder in folders)


def gpu_decorator() -> Callable[..., Any] | None:
    """`spaces.GPU` where that package is installed, as it is on Hugging Face Spaces."""
    if importlib.util.find_spec("spaces") is None:
        return None
    return importlib.import_module("spaces").GPU


def make_service(settings: Any, gpu: Callable[..., Any] | None = None) -> Service:
    """The service that the settings ask for. Raises InputError for a model that is not there."""
    from image2cad.serving import Service, limits_from, local_backend, remote_backend

    limits = limits_from(settings.limits or "")
    if settings.backend_url:
        if not settings.backend_model:
            raise InputError("--backend-url needs --backend-model, the name of its model")
        key = secret("IMAGE2CAD_BACKEND_KEY") or ""
        chosen = (settings.backend_url, settings.backend_model, key, settings.backend_general)
        backend = remote_backend(*chosen)
    else:
        backend = local_backend(settings.model, settings.load_in_4bit)
        if gpu is not None:
            backend = on_gpu(backend, gpu)
    if settings.served_model_name:
        backend = replace(backend, name=settings.served_model_name)
    return Service(backend, limits, workers=settings.workers)


def on_gpu(backend: Backend, gpu: Callable[..., Any]) -> Backend:
    """The backend with its model call, and that alone, under `spaces.GPU`.

    On ZeroGPU the call runs in a process that has the GPU and cannot start others, so that
    programs and verification stay outside. What goes in and out is pickled.
    """

    def seconds(image: Image.Image | Sequence[Image.Image], effort: str, **bound: int) -> int:
        return GPU_SECONDS[effort]

    def propose(image: Image.Image | Sequence[Image.Image], effort: str, **bound: int) -> list[str]:
        return backend.propose(image, effort, **bound)

    return replace(backend, propose=gpu(duration=seconds)(propose))


def secret(name: str) -> str | None:
    """What the environment has under this name. Raises InputError where it is set but blank.

    A variable that was meant to hold a key, and holds none, would leave a server open.
    """
    value = os.environ.get(name)
    if value is not None and not value.strip(" ,"):
        raise InputError(f"{name} is set but blank; give it a key, or unset it")
    return value


def known_keys(settings: Any) -> Keys:
    """The keys that the server asks for. Raises InputError where some were meant and none is there.

    Warns where a server that others can reach asks for none, and where keys are short.
    """
    from image2cad.serving import Keys, limits_from

    if settings.key_file is not None and not settings.key_file.strip():
        raise InputError("the name of the key file is blank; give one, or unset IMAGE2CAD_KEY_FILE")
    file = Path(settings.key_file) if settings.key_file else None
    keys = Keys(listed(secret("IMAGE2CAD_KEYS") or ""), file, limits_from(settings.limits or ""))
    if not keys and not is_loopback(settings.host):
        warn(
            f"anybody who reaches {settings.host} may use this server: "
            "IMAGE2CAD_KEYS or --key-file would ask for a key"
        )
    if keys.short():
        good = 'python -c "import secrets; print(secrets.token_urlsafe())"'
        warn(f"a key is so short that it can be guessed; this makes a good one: {good}")
    return keys


def warn(text: str) -> None:
    """Tell who starts the server."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def own_names(settings: Any) -> list[str]:
    """The names by which the server may be called, of its machine and of the settings."""
    names = {"localhost", socket.gethostname()}
    if not is_loopback(settings.host):
        names.add(settings.host)
    given = listed(settings.names or "")
    for name in given:
        if name != "*" and not re.fullmatch(r"(\*\.)?[\w-]+(\.[\w-]+)*", name):
            raise InputError(f"{name!r:.100} is no name; give cad.example.org, *.example.org or *")
    return sorted(filter(None, names)) + given


def serve(
    service: Service,
    settings: Any,
    listener: socket.socket,
    keys: Keys,
    names: list[str],
    files: Path,
    stdout: TextIO,
) -> None:
    """Page and API on `listener`, until a signal. files: where the page keeps its files.

    stdout: is told the address when all is set up.
    """
    import uvicorn

    from image2cad.serving import PAGE_LOOK, make_api, make_page, mount_page, patient

    closed = bool(keys) and not settings.open_page
    of_page = service.for_guests() if keys and settings.open_page else service
    page = make_page(of_page.for_page())
    api = make_api(
        service, keys=keys, hosts=listed(settings.hosts or ""), names=names,
        origins=listed(settings.origins or ""), closed_page=closed,
        jobs_file=settings.jobs or ":memory:", root_path=settings.root_path,
    )  # fmt: skip
    mcp = not closed and importlib.util.find_spec("mcp") is not None
    look = {**PAGE_LOOK, "root_path": settings.root_path, "mcp_server": mcp}
    app = mount_page(api, page, service.limits, files, **look)
    config = uvicorn.Config(
        app, log_config=None, log_level=settings.log_level, access_log=False,
        timeout_graceful_shutdown=settings.grace, http=patient(service.limits), ws="none",
        server_header=False, forwarded_allow_ips=settings.forwarded_allow_ips,
    )  # fmt: skip
    server = uvicorn.Server(config)
    announce_to_zero_gpu(page, server)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    print(f"image2cad is at {address}", file=stdout, flush=True)
    server.run(sockets=[listener])


def listed(text: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def announce_to_zero_gpu(page: Any, server: Any) -> None:
    """Do what `spaces` does in gr.Blocks.launch, which is not called for a page that is mounted.

    It moves the models to where the GPU's processes find them, and tells the Space that there is
    a function for the GPU. It reads the port from `page.server`.
    """
    start = getattr(sys.modules.get("spaces.zero"), "startup", None)
    if start is not None:
        page.server = server
        start()


if __name__ == "__main__":
    run_cli(main)
