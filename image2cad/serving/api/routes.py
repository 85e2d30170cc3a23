"""The HTTP API: pictures to programs, programs to parts and scores, and how the server does.

    api = make_api(Service(local_backend("models/nano")), keys=["secret"])
    uvicorn.run(api)

    curl -F image=@part.png -F effort=low -F files=step,glb localhost:8000/v1/generate

POST /v1/chat/completions (OpenAI's vision format), /v1/generate, /v1/execute, /v1/score; GET
/v1/models, /v1/models/NAME, /health, /ready, /metrics, /docs. Errors are {"error": {"message",
"type", "code"}}. When the server stops, it closes the service. Left out: the page (page/layout.py).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, File, Form, Request, Response, Security, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from image2cad.common import NEVER, Stop
from image2cad.serving.api.clients import begun, finished
from image2cad.serving.api.errors import answer_errors, answer_to, error
from image2cad.serving.api.guard import guard, log_to_stderr, new_metrics
from image2cad.serving.api.openai import (
    Chat,
    all_bytes,
    check_hosts,
    chunks,
    completion,
    first_chunk,
    pictures_and_text,
)
from image2cad.serving.api.schemas import (
    CAMERA_HELP,
    Execute,
    Executed,
    Found,
    Score,
    Scored,
    outcome,
    reason,
    told,
)
from image2cad.serving.door import Door
from image2cad.serving.jobs import Built
from image2cad.serving.keys import Keys
from image2cad.serving.limits import check_count, open_pictures
from image2cad.serving.service import Generated, Progress, Service

SPARE_THREADS = 16  # threads beyond those that may run or wait, to say Busy and to open pictures
ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
SECONDS_BETWEEN_SIGNS = 5.0  # between two signs of life in a stream
NO_BUFFERING = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
# Files in base64 are too long to be coloured; no server elsewhere is asked whether all is well.
DOCS_PAGE = {"syntaxHighlight": False, "validatorUrl": None}
open_routes = APIRouter()
routes = APIRouter(dependencies=[Security(HTTPBearer(auto_error=False))])


def make_api(
    service: Service,
    keys: Keys | Sequence[str] = (),
    hosts: Sequence[str] = (),
    names: Sequence[str] = ("*",),
    origins: Sequence[str] = (),
    closed_page: bool = False,
) -> FastAPI:
    """The app. keys: one of them is wanted for /v1, none means open to everybody.

    hosts: from where pictures may be fetched, "name" or "name:port". Raises InputError for others.
    names, origins: as of door.py. closed_page: whether the page beside it wants a key too.
    """
    check_hosts(hosts)
    limits = service.limits
    places = 2 * (limits.running + limits.waiting) + service.workers + SPARE_THREADS
    threads = ThreadPoolExecutor(places, thread_name_prefix="request")

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)
        threads.shutdown(wait=False, cancel_futures=True)

    about = "Pictures of CAD parts to CadQuery programs, and programs to parts, files and scores."
    app = FastAPIOffline(  # its page at /docs loads nothing from elsewhere
        title="image2cad", version="1", description=about, lifespan=lifespan,
        redoc_url=None, swagger_ui_parameters=DOCS_PAGE,
    )  # fmt: skip
    app.state.service, app.state.threads, app.state.hosts = service, threads, hosts
    app.state.metrics, app.state.since = new_metrics(service), int(time.time())
    app.include_router(open_routes)
    app.include_router(routes)
    answer_errors(app)
    log_to_stderr()
    every = [*open_routes.routes, *routes.routes]
    methods = {"/openapi.json": ["GET"], "/docs": ["GET"]}
    methods |= {r.path: sorted(r.methods or ()) for r in every if isinstance(r, Route)}
    known = keys if isinstance(keys, Keys) else Keys(keys, limits=limits)
    app.add_middleware(
        guard, service=service, metrics=app.state.metrics, methods=methods, keys=known,
        closed_page=closed_page,
    )  # fmt: skip
    # Without any origin as well: gradio would answer every other site.
    app.add_middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "X-Request-Id"],
        expose_headers=["X-Request-Id", "Retry-After"],
    )  # fmt: skip
    app.add_middleware(Door, limits=limits, names=names, origins=origins)
    return app


@routes.post("/v1/chat/completions")
async def chat_completions(body: Chat, request: Request) -> Any:
    """A picture in OpenAI's vision format to a program, which is the content of the answer.

    Whole or as a stream. The last message with pictures counts; several in it are views of one
    part. A model on another server reads the text beside them.
    """
    service: Service = request.app.state.service
    model = service.backend.name
    if body.model != model:
        return _no_model(body.model, model)
    addresses, text = pictures_and_text(body)
    files = await all_bytes(addresses, request.app.state.hosts, service.limits)
    asked = {"camera": body.camera or "", "text": text}
    work = partial(_generate, service, files, body.effort, asked)
    if not body.stream:
        return completion(model, await finished(request, work))
    options = body.stream_options
    with_usage = bool(options and options.include_usage)
    job, left = await begun(request, work)
    events = _events(job, left, model, with_usage)
    return StreamingResponse(events, media_type="text/event-stream", headers=NO_BUFFERING)


@routes.post("/v1/generate", response_model=Found)
async def generate(
    request: Request,
    image: Annotated[
        list[UploadFile],
        File(description="PNG, JPEG, WebP, GIF or BMP; several are views of one part"),
    ],
    effort: Annotated[str, Form(description="none, low or high")] = "low",
    files: Annotated[str, Form(description="formats, such as step,glb")] = "",
    camera: Annotated[str, Form(description=CAMERA_HELP)] = "",
    text: Annotated[str, Form(description="beside the picture, for a model that reads it")] = "",
) -> Any:
    """A picture, or views of one part, to the program that draws it best, its measures and files.

    A program that does not run is an answer too, with "failure" in the place of "part".
    """
    service: Service = request.app.state.service
    kinds = [kind.strip() for kind in files.split(",") if kind.strip()]
    check_count(len(image), service.limits)
    data = [await one.read() for one in image]
    asked = {"camera": camera, "text": text}

    def work(stop: Stop) -> Found:
        made = _generate(service, data, effort, asked, kinds=kinds, stop=stop)
        fields = outcome(made.part) | _files(made) | told(made) | {"seconds": made.seconds}
        return Found(**fields, code=made.code, candidates=made.candidates)

    return await finished(request, work)


@routes.post("/v1/execute", response_model=Executed)
async def execute(body: Execute, request: Request) -> Any:
    """A program to the measures of its part and files; or to "failure", which says why not.

    The program runs in a confined process with limits of time and memory.
    """
    service: Service = request.app.state.service

    def work(stop: Stop) -> Executed:
        built = service.build(body.code, body.files, stop)
        return Executed(**outcome(built.part) | _files(built))

    return await finished(request, work)


@routes.post("/v1/score", response_model=Scored)
async def score(body: Score, request: Request) -> Any:
    """How well one program's part matches another's. A prediction that fails scores 0."""
    service: Service = request.app.state.service

    def work(stop: Stop) -> Scored:
        scores = service.score(body.prediction, body.reference, body.alignment, stop)
        failure = scores.pop("failure")
        return Scored(**scores, failure=failure and reason(failure))

    return await finished(request, work)


@routes.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The one model of this server, in OpenAI's format."""
    return {"object": "list", "data": [_model(request)]}


@routes.get("/v1/models/{name:path}")
async def model(name: str, request: Request) -> Any:
    """The model of that name, in OpenAI's format."""
    known = _model(request)
    return known if name == known["id"] else _no_model(name, known["id"])


@routes.api_route("/v1/{path:path}", methods=ALL_METHODS, include_in_schema=False)
async def nothing_here(path: str, request: Request) -> Any:
    # A page that is mounted at / would answer in its own way.
    return error(404, f"there is no {request.method} /v1/{path} here; /docs lists what there is")


@open_routes.get("/health")
async def health() -> dict[str, str]:
    """Whether the server answers at all."""
    return {"status": "ok"}


@open_routes.get("/ready")
async def ready(request: Request) -> Any:
    """Whether the server can work: 503 while it starts and when it stops."""
    if not request.app.state.service.ready():
        return error(503, "the worker processes are not ready yet")
    return {"status": "ready"}


@open_routes.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Counts and times for Prometheus."""
    registry = request.app.state.metrics.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _generate(
    service: Service,
    files: Sequence[bytes],
    effort: str,
    asked: Mapping[str, str],
    progress: Progress = None,
    kinds: Sequence[str] = (),
    stop: Stop = NEVER,
) -> Generated:
    """asked: camera and text, as `Service.generate` takes them."""
    views = open_pictures(files, service.limits)
    return service.generate(views, effort, progress, kinds, stop, **asked)


def _files(made: Generated | Built) -> dict[str, dict[str, str]]:
    texts = {kind: base64.b64encode(data).decode() for kind, data in made.files.items()}
    return {"files": texts, "no_files": made.no_files}


def _model(request: Request) -> dict[str, Any]:
    name, since = request.app.state.service.backend.name, request.app.state.since
    return {"id": name, "object": "model", "created": since, "owned_by": "image2cad"}


def _no_model(name: str, known: str) -> JSONResponse:
    text = f"the model {name!r:.100} does not exist here; this server has {known!r}"
    return error(404, text, "model_not_found")


async def _events(
    job: asyncio.Future[Generated], left: threading.Event, model: str, with_usage: bool
) -> AsyncIterator[str]:
    name = f"chatcmpl-{uuid.uuid4().hex}"
    try:
        yield first_chunk(model, name)
        while not job.done():
            await asyncio.wait({job}, timeout=SECONDS_BETWEEN_SIGNS)
            yield ": working\n\n"  # a comment: clients skip it, proxies see that it goes on
        for event in chunks(model, job.result(), name, with_usage):
            yield event
    except Exception as exception:
        answer = answer_to(exception)
        yield f"data: {bytes(answer.body).decode()}\n\n"
        if answer.status_code == 500:
            raise
    finally:
        left.set()
