"""The HTTP API: pictures to programs, programs to parts and scores, and how the server does.

    api = make_api(Service(local_backend("models/nano")), keys=["secret"])
    uvicorn.run(api)

    curl -F image=@part.png -F effort=low -F files=step,glb localhost:8000/v1/generate

POST /v1/chat/completions (OpenAI's vision format), /v1/generate, /v1/execute, /v1/score, /v1/jobs,
/v1/jobs/ID/cancel; GET /v1/jobs/ID, /v1/models, /v1/models/NAME, /health, /ready, /version,
/metrics, /docs. Errors are {"error": {"message",
"type", "code"}}. When the server stops, it closes the service. Left out: the page (page/layout.py).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from image2cad.common import VERSION, Stop
from image2cad.serving.api.clients import begun, finished
from image2cad.serving.api.downloads import (
    FORMAT_HELP,
    MEDIA_TYPES,
    file_answer,
    file_answers,
    file_response,
    wanted_kind,
)
from image2cad.serving.api.errors import (
    MEANING,
    Problem,
    ProblemAnswer,
    answer_errors,
    answer_to,
    error,
    problems,
)
from image2cad.serving.api.guard import guard, log_to_stderr, new_metrics
from image2cad.serving.api.openai import (
    TEXT_CHANGED,
    Chat,
    ChatAnswer,
    all_bytes,
    box_text,
    check_hosts,
    chunks,
    completion,
    effort_of,
    first_chunk,
    ignored,
    later_text,
    most_tokens,
    pictures_and_text,
    refuse,
)
from image2cad.serving.api.orders import Order, check_order, filled, found, in_base64, order_form
from image2cad.serving.api.schemas import (
    Execute,
    Executed,
    Found,
    Job,
    Model,
    Models,
    Said,
    Score,
    Scored,
    Version,
    length_text,
    outcome,
    reason,
)
from image2cad.serving.api.stored_jobs import MOST_AGAIN_LETTERS, StoredJob, StoredJobs
from image2cad.serving.door import Door
from image2cad.serving.jobs import SIZE_GIVEN, Built
from image2cad.serving.keys import Keys
from image2cad.serving.service import Generated, Service

SPARE_THREADS = 16  # threads beyond those that may run or wait, to say Busy and to open pictures
ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
SECONDS_BETWEEN_SIGNS = 5.0  # between two signs of life in a stream
NO_BUFFERING = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
# Files in base64 are too long to be coloured; no server elsewhere is asked whether all is well.
DOCS_PAGE = {"syntaxHighlight": False, "validatorUrl": None}
WANTED = {"enum": ["", "json", *MEDIA_TYPES]}
TOLD = [f"X-Image2cad-{w}" for w in ("Size", "Measures", "Likeness", "Confidence", "Source")]
NO_JOB = "there is no such job; those that have ended are kept for a while only"
NO_CHANGES = (
    "the model here reads pictures only and cannot change a part by text; change the program, "
    "or send the picture alone"
)
open_routes = APIRouter()
routes = APIRouter(dependencies=[Security(HTTPBearer(auto_error=False))])


def make_api(
    service: Service,
    keys: Keys | Sequence[str] = (),
    hosts: Sequence[str] = (),
    names: Sequence[str] = ("*",),
    origins: Sequence[str] = (),
    closed_page: bool = False,
    jobs_file: str | Path = ":memory:",
    root_path: str = "",
) -> FastAPI:
    """The app. keys: one of them is wanted for /v1, none means open to everybody.

    hosts: from where pictures may be fetched, "name" or "name:port". Raises InputError for others.
    names, origins: as of door.py. closed_page: whether the page beside it wants a key too.
    jobs_file: as of stored_jobs.py. root_path: "/cad", where a proxy shows this server, whether
    it takes that off the paths that it passes on or not.
    """
    check_hosts(hosts)
    limits = service.limits
    places = 2 * (limits.running + limits.waiting) + service.workers + SPARE_THREADS
    threads = ThreadPoolExecutor(places, thread_name_prefix="request")
    jobs = StoredJobs(service, jobs_file)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        jobs.start()
        yield
        await asyncio.to_thread(jobs.close)
        await asyncio.to_thread(service.close)
        threads.shutdown(wait=False, cancel_futures=True)

    about = "Pictures of CAD parts to CadQuery programs, and programs to parts, files and scores."
    app = FastAPIOffline(  # its page at /docs loads nothing from elsewhere
        title="image2cad", version=VERSION, description=about, lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        redoc_url=None, swagger_ui_parameters=DOCS_PAGE, root_path=root_path,
    )  # fmt: skip
    app.state.service, app.state.threads, app.state.hosts = service, threads, hosts
    app.state.jobs = jobs
    app.state.metrics, app.state.since = new_metrics(service), int(time.time())
    app.include_router(open_routes)
    app.include_router(routes)
    answer_errors(app)
    _tell_the_model(app, service.backend.name)
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
        allow_headers=["Authorization", "X-Request-Id", "Idempotency-Key"],
        expose_headers=["X-Request-Id", "Retry-After", "Location", "Content-Disposition", *TOLD],
    )  # fmt: skip
    app.add_middleware(Door, limits=limits, names=names, origins=origins)
    return app


@routes.post(
    "/v1/chat/completions",
    responses={
        200: {
            "model": ChatAnswer,
            "description": "the program, or a stream of events that hold its lines",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(400, 404, 502, 504),
    },
)
async def chat_completions(body: Chat, request: Request) -> Any:
    """A picture in OpenAI's vision format to a program, which is the content of the answer.

    Whole or as a stream. The last message with pictures counts; several in it are views of one
    part. A model on another server reads the text beside them, and changes a part as text after an
    answer asks. "image2cad" in the answer, and in a stream's event with the finish_reason, says how
    far to trust it.
    """
    service: Service = request.app.state.service
    model = service.backend.name
    if body.model != model:
        return _no_model(body.model, model)
    refuse(body)
    addresses, text = pictures_and_text(body)
    effort, unread = effort_of(body), ignored(body)
    notes: tuple[str, ...] = ()
    if later := later_text(body):
        if not service.backend.reads_text:
            raise HTTPException(400, NO_CHANGES)
        text, effort, notes = f"{text}\n{later}".strip(), "none", (TEXT_CHANGED,)
    bound = most_tokens(body)
    if bound and not service.backend.bounded:
        unread.append("max_tokens")
    files = await all_bytes(addresses, request.app.state.hosts, service.limits)
    order = Order(
        tuple(files), effort, camera=body.camera or "", text=text, length=length_text(body.length),
        box=box_text(body.box), max_tokens=bound, notes=notes,
    )  # fmt: skip
    work = partial(filled, service, order)
    if not body.stream:
        return completion(model, await finished(request, work), unread)
    options = body.stream_options
    with_usage = bool(options and options.include_usage)
    job, left = await begun(request, work)
    events = _events(job, left, model, with_usage, unread)
    return StreamingResponse(events, media_type="text/event-stream", headers=NO_BUFFERING)


@routes.post(
    "/v1/generate",
    response_model=Found,
    responses={200: {"content": file_answers()}, **problems(406, 502, 504)},
)
async def generate(
    request: Request,
    order: Annotated[Order, Depends(order_form)],
    format: Annotated[str, Query(description=FORMAT_HELP, json_schema_extra=WANTED)] = "",
) -> Any:
    """A picture, or views of one part, to the program that draws it best, its measures and files.

    A program that does not run is an answer too, with "failure" in the place of "part". With
    ?format=step, or the header Accept: model/step, the answer is that file.
    """
    service: Service = request.app.state.service
    kind = wanted_kind(request, format)
    if kind is not None:
        order = replace(order, kinds=(kind,))
    made = await finished(request, partial(filled, service, order))
    if kind is None:
        return found(made)
    told = {"likeness": f"{made.likeness:.4f}", "confidence": f"{made.confidence:.4f}"}
    return file_answer(made, kind, order.name, told | {"source": made.source})


@routes.post(
    "/v1/execute",
    response_model=Executed,
    responses={200: {"content": file_answers()}, **problems(406, 504)},
)
async def execute(
    body: Execute,
    request: Request,
    format: Annotated[str, Query(description=FORMAT_HELP, json_schema_extra=WANTED)] = "",
) -> Any:
    """A program to the measures of its part and files; or to "failure", which says why not.

    The program runs in a confined process with limits of time and memory. With ?format=step, or
    the header Accept: model/step, the answer is that file.
    """
    service: Service = request.app.state.service
    kind = wanted_kind(request, format)
    kinds = body.files if kind is None else [kind]

    def work(stop: Stop) -> Built:
        return service.build(body.code, kinds, stop, length_text(body.length))

    built = await finished(request, work)
    if kind is not None:
        return file_answer(built, kind, body.name)
    # A program that stays as it was is not sent back.
    code = built.code if built.size == SIZE_GIVEN else ""
    return Executed(**outcome(built.part, built.size) | in_base64(built), code=code)


@routes.post("/v1/score", response_model=Scored, responses=problems(504))
async def score(body: Score, request: Request) -> Any:
    """How well one program's part matches another's. A prediction that fails scores 0."""
    service: Service = request.app.state.service

    def work(stop: Stop) -> Scored:
        scores = service.score(body.prediction, body.reference, body.alignment, stop)
        failure = scores.pop("failure")
        return Scored(**scores, failure=failure and reason(failure))

    return await finished(request, work)


@routes.post(
    "/v1/jobs", status_code=202, response_model=Job,
    responses={
        200: {"model": Job, "description": "the job that this Idempotency-Key has made before"},
        202: {
            "description": "the job is kept",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **problems(409),
    },
)  # fmt: skip
async def create_job(
    request: Request,
    order: Annotated[Order, Depends(order_form)],
    idempotency_key: Annotated[
        str | None,
        Header(description="the same again is the same job", max_length=MOST_AGAIN_LETTERS),
    ] = None,
) -> Any:
    """The same as /v1/generate for work that takes long: it goes on when the connection is closed.

    Ask for its answer at the address in Location. Who knows a job's id may see it.
    """
    jobs: StoredJobs = request.app.state.jobs
    await asyncio.to_thread(check_order, request.app.state.service, order)
    owner = getattr(request.state, "owner", "")
    job, new = await asyncio.to_thread(jobs.put, order, owner, idempotency_key or None)
    body = _job(job).model_dump(mode="json")
    where = {"Location": f"{request.scope.get('root_path', '')}/v1/jobs/{job.id}"}
    return JSONResponse(body, 202 if new else 200, where)


@routes.get(
    "/v1/jobs/{id}",
    response_model=Job,
    responses={200: {"content": file_answers()}, **problems(404, 406, 409)},
)
async def get_job(
    id: str,
    request: Request,
    format: Annotated[str, Query(description=FORMAT_HELP, json_schema_extra=WANTED)] = "",
) -> Any:
    """How far a job is, and its answer; or one of the files that it was to make, as a file."""
    jobs: StoredJobs = request.app.state.jobs
    kind = wanted_kind(request, format)
    job = await asyncio.to_thread(jobs.get, id)
    if job is None:
        return error(404, NO_JOB)
    if kind is None:
        return _job(job)
    if job.answer is None:
        return error(409, f"this job has no file: it is {job.status}")
    if kind not in job.answer["files"]:
        why = job.answer["no_files"].get(kind, f"it was not asked for; name {kind} in files")
        return error(404, f"there is no {kind} file: {why}")
    words = {"size": job.answer["part"]["size"], "measures": job.answer["part"]["text"]}
    words |= {name: job.answer[name] for name in ("likeness", "confidence", "source")}
    return file_response(base64.b64decode(job.answer["files"][kind]), kind, job.name, words)


@routes.post("/v1/jobs/{id}/cancel", response_model=Job, responses=problems(404))
async def cancel_job(id: str, request: Request) -> Any:
    """The job, which is not done any more, unless it has ended already."""
    jobs: StoredJobs = request.app.state.jobs
    job = await asyncio.to_thread(jobs.cancel, id)
    return error(404, NO_JOB) if job is None else _job(job)


@routes.get("/v1/models", response_model=Models, responses=problems())
async def list_models(request: Request) -> dict[str, Any]:
    """The one model of this server, in OpenAI's format."""
    return {"object": "list", "data": [_model(request)]}


@routes.get("/v1/models/{name:path}", response_model=Model, responses=problems(404))
async def get_model(name: str, request: Request) -> Any:
    """The model of that name, in OpenAI's format."""
    known = _model(request)
    return known if name == known["id"] else _no_model(name, known["id"])


@routes.api_route("/v1/{path:path}", methods=ALL_METHODS, include_in_schema=False)
async def nothing_here(path: str, request: Request) -> Any:
    # A page that is mounted at / would answer in its own way.
    return error(404, f"there is no {request.method} /v1/{path} here; /docs lists what there is")


@open_routes.get("/health", response_model=Said)
async def health() -> dict[str, str]:
    """Whether the server answers at all."""
    return {"status": "ok"}


@open_routes.get(
    "/ready",
    response_model=Said,
    responses={503: {"model": ProblemAnswer, "description": MEANING[503]}},
)
async def ready(request: Request) -> Any:
    """Whether the server can work: 503 while it starts and when it stops."""
    if not request.app.state.service.ready():
        return error(503, "the worker processes are not ready yet")
    return {"status": "ready"}


@open_routes.get("/version", response_model=Version)
async def version(request: Request) -> dict[str, str]:
    """What is running here."""
    return {
        "name": "image2cad",
        "version": VERSION,
        "model": request.app.state.service.backend.name,
    }


@open_routes.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Counts and times for Prometheus."""
    state = request.app.state
    both = state.metrics.registry, state.service.figures.registry
    return Response(b"".join(map(generate_latest, both)), media_type=CONTENT_TYPE_LATEST)


def _tell_the_model(app: FastAPI, name: str) -> None:
    """Let the examples of /openapi.json name the model that is served here."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        document["components"]["schemas"]["Chat"]["example"]["model"] = name
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _job(job: StoredJob) -> Job:
    return Job(
        id=job.id, status=job.status, progress=job.share, doing=job.doing, created=job.made,
        ended=job.ended, result=Found(**job.answer) if job.answer else None,
        error=Problem(**job.problem) if job.problem else None,
    )  # fmt: skip


def _model(request: Request) -> dict[str, Any]:
    name, since = request.app.state.service.backend.name, request.app.state.since
    return {"id": name, "object": "model", "created": since, "owned_by": "image2cad"}


def _no_model(name: str, known: str) -> JSONResponse:
    text = f"the model {name!r:.100} does not exist here; this server has {known!r}"
    return error(404, text, "model_not_found")


async def _events(
    job: asyncio.Future[Generated],
    left: threading.Event,
    model: str,
    with_usage: bool,
    unread: Sequence[str],
) -> AsyncIterator[str]:
    name = f"chatcmpl-{uuid.uuid4().hex}"
    try:
        yield first_chunk(model, name)
        while not job.done():
            await asyncio.wait({job}, timeout=SECONDS_BETWEEN_SIGNS)
            yield ": working\n\n"  # a comment: clients skip it, proxies see that it goes on
        for event in chunks(model, job.result(), name, with_usage, unread):
            yield event
    except Exception as exception:
        answer = answer_to(exception)
        yield f"data: {bytes(answer.body).decode()}\n\n"
        if answer.status_code == 500:
            raise
    finally:
        left.set()
