"""Who is asked for programs: a model in this process, or any OpenAI-compatible server.

    backend = local_backend("models/nano")
    backend = remote_backend("http://gpu-box:8000/v1", "llava-cad", key="...")
    codes = backend.propose(picture, "low")         # best guess first; or a list of views
    codes = backend.propose(picture, "low", "100 mm wide, holes M6")        # where it reads text
    codes = backend.propose(picture, "low", max_tokens=200)     # where it can be bounded

A cluster of vLLM replicas can so do the generating while the programs are checked here. Left
out: checking them (service.py), and queues (limits.py).
"""

from __future__ import annotations

import base64
import functools
import io
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from image2cad.cad import CutOff, extract_code
from image2cad.common import EFFORTS, QUESTION, SAMPLING_TEMPERATURE, InputError

MOST_NEW_TOKENS = 1024  # at most, of a program
MOST_GENERAL_TOKENS = 4096  # of a model that explains what it does
GENERAL_QUESTION = (
    "The pictures show one mechanical part, from one side or from several: a view of a CAD "
    "program, a photograph or a dimensioned drawing. Write one CadQuery program in Python that "
    "builds it, in millimetres where dimensions are given, with z up, and leave the solid in a "
    "variable named result. Answer with the program alone."
)
SAMPLES_A_BATCH = 8
SMALL_MODEL = 100_000_000  # parameters; on a CPU it loses more by several threads than it gains
SAMPLING_SECONDS = 30.0  # for a batch of samples; those that have not ended by then are cut
LETTERS_A_TOKEN = 3.0  # of CadQuery text, where no tokenizer is at hand
REQUESTS_AT_A_TIME = 8  # to a remote server, a picture
ANSWER_SECONDS = 120.0  # that a remote server may take for an answer

TRIES_WHILE_BUSY, LONGEST_BUSY_WAIT = 5, 10.0  # where it says that it is busy; the wait in seconds

BACKEND_LOG = logging.getLogger(__name__)

# Whether the call of `propose` in this context is still wanted. A local model looks at every token,
# which a call in another process cannot.
unwanted: ContextVar[Callable[[], bool]] = ContextVar("unwanted", default=lambda: False)


class Stopped(Exception):
    """A local model gave up a call that nobody wants any more."""


class Unreachable(InputError):
    """The server that generates does not answer as it should."""


Views = Image.Image | Sequence[Image.Image]  # a picture, or views of one part


def estimated(image: Views, codes: Sequence[str]) -> tuple[int, int]:
    """Tokens of prompt and programs, from the number of letters."""
    return round(len(QUESTION) / LETTERS_A_TOKEN), round(sum(map(len, codes)) / LETTERS_A_TOKEN)


@dataclass(frozen=True)
class Backend:
    """Where programs come from.

    name: of the model, as /v1/models lists it. propose: a picture, or views of one part, and an
    effort to programs, best guess first. tokens: of the prompt and of these programs. calls: how
    many pictures at a time `propose` may be asked for. reads_text: it takes the text beside a
    picture as a third argument, and photographs and dimensioned drawings as well as its model can.
    bounded: it takes `max_tokens`, of a program at most; one that has more is a `CutOff`.
    """

    name: str
    propose: Callable[..., list[str]]
    tokens: Callable[[Views, Sequence[str]], tuple[int, int]] = estimated
    calls: int = 1
    reads_text: bool = False
    bounded: bool = False


def local_backend(model_name: str, load_in_4bit: bool = False) -> Backend:
    """A base or an adapter, loaded now and kept.

    Raises InputError if it cannot be loaded.
    """
    from image2cad.vlm import portable

    _loaded(model_name, load_in_4bit)
    shown = portable(model_name)
    if Path(shown).is_absolute():  # what lies elsewhere on this machine is nobody's business
        shown = "/".join(Path(shown).parts[-2:])
    return Backend(
        name=shown,
        propose=functools.partial(propose_local, model_name, load_in_4bit),
        tokens=functools.partial(_tokens_local, model_name, load_in_4bit),
        bounded=True,
    )


def propose_local(
    model_name: str, load_in_4bit: bool, image: Views, effort: str, max_tokens: int | None = None
) -> list[str]:
    """The model's greedy program first, then different samples: as many as the effort has.

    Of several views a base that takes one picture at a time is shown the first. Raises Stopped
    when `unwanted` says so.
    """
    import torch

    from image2cad.vlm import can_see, generate_codes

    model, processor = _loaded(model_name, load_in_4bit)
    image = can_see(processor, image)
    options: dict[str, Any] = {
        "batch_size": SAMPLES_A_BATCH,
        "max_new_tokens": min(max_tokens or MOST_NEW_TOKENS, MOST_NEW_TOKENS),
        "progress": False,
    }
    threads = torch.get_num_threads()
    if model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        codes = generate_codes(model, processor, [image], **options)
        if EFFORTS[effort].samples:
            # One batch of one picture is several times as fast as one after the other.
            pictures = [image] * EFFORTS[effort].samples
            options["temperature"] = SAMPLING_TEMPERATURE
            model.generation_config.max_time = SAMPLING_SECONDS
            codes += generate_codes(model, processor, pictures, **options)
    finally:
        model.generation_config.max_time = None
        torch.set_num_threads(threads)
    return list(dict.fromkeys(codes))


@functools.cache
def _loaded(model_name: str, load_in_4bit: bool) -> tuple[Any, Any]:
    from image2cad.vlm import load_model, quiet

    quiet()
    model, processor = load_model(model_name, load_in_4bit)
    model.get_input_embeddings().register_forward_pre_hook(_stop_if_unwanted)
    return model, processor


def _stop_if_unwanted(*_: Any) -> None:
    if unwanted.get()():
        raise Stopped


def _tokens_local(
    model_name: str, load_in_4bit: bool, image: Views, codes: Sequence[str]
) -> tuple[int, int]:
    from image2cad.vlm import can_see, encode_picture

    _, processor = _loaded(model_name, load_in_4bit)
    texts = [processor.tokenizer(code, add_special_tokens=False)["input_ids"] for code in codes]
    prompt = len(encode_picture(processor, can_see(processor, image))["input_ids"])
    return prompt, sum(len(ids) + 1 for ids in texts)  # and the token that ends each


def remote_backend(url: str, model: str, key: str = "", general: bool = False) -> Backend:
    """An OpenAI-compatible server with vision chat. url: with its /v1.

    general: its model was not trained on this project's question, and is told in sentences what is
    wanted. Raises InputError if it cannot be reached or does not have that model.
    """
    try:
        client = httpx.Client(
            base_url=url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=10),
        )
    except httpx.InvalidURL as error:
        raise InputError(f"{url!r} is no address of a server: {error}") from error
    listed = _answer(client, "GET", "models")
    try:
        names = [str(one["id"]) for one in listed["data"]]
    except (KeyError, TypeError) as error:
        raise Unreachable(f"{url} does not list its models as OpenAI's API does") from error
    if model not in names:
        raise InputError(f"{url} has no model {model!r}; it has {', '.join(names) or 'none'}")
    propose = functools.partial(_propose_remote, client, model, general)
    return Backend(name=model, propose=propose, calls=16, reads_text=True, bounded=True)


def _data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _propose_remote(
    client: httpx.Client,
    model: str,
    general: bool,
    image: Views,
    effort: str,
    text: str = "",
    max_tokens: int | None = None,
) -> list[str]:
    """The greedy program, then samples. Single requests, because not every server takes n > 1.

    Raises Unreachable where no request is answered; samples that are not are left out.
    """
    views = [image] if isinstance(image, Image.Image) else image
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": _data_url(view)}} for view in views
    ]
    question = f"{GENERAL_QUESTION}\n{QUESTION}" if general else QUESTION
    parts.append({"type": "text", "text": f"{question}\n{text}" if text else question})
    most = MOST_GENERAL_TOKENS if general else MOST_NEW_TOKENS
    greedy = {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": min(max_tokens or most, most),
        "temperature": 0.0,
    }
    sampled = [
        {**greedy, "temperature": SAMPLING_TEMPERATURE, "seed": seed}
        for seed in range(EFFORTS[effort].samples)
    ]

    def replied(job: dict[str, Any]) -> str | Unreachable:
        try:
            answer = _answer(client, "POST", "chat/completions", job)
            code = extract_code(_content(client, answer))
            return CutOff(code) if answer["choices"][0].get("finish_reason") == "length" else code
        except Unreachable as error:
            return error

    with ThreadPoolExecutor(REQUESTS_AT_A_TIME) as pool:
        replies = list(pool.map(replied, [greedy, *sampled]))
    codes = [reply for reply in replies if isinstance(reply, str)]
    failed = [reply for reply in replies if isinstance(reply, Unreachable)]
    if failed and not codes:
        raise failed[0]
    if failed:
        BACKEND_LOG.warning("%d of %d requests failed: %s", len(failed), len(replies), failed[0])
    return list(dict.fromkeys(codes))


def _content(client: httpx.Client, answer: Any) -> str:
    try:
        said = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise Unreachable(f"{client.base_url} does not answer as OpenAI's API does") from error
    if said is not None and not isinstance(said, str):
        raise Unreachable(f"{client.base_url} does not answer with text")
    return said or ""


def _answer(client: httpx.Client, method: str, path: str, body: Any = None) -> Any:
    where = f"{client.base_url}{path}"
    try:
        response = client.request(method, path, json=body)
        for _ in range(TRIES_WHILE_BUSY):
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            wait = response.headers.get("Retry-After", "")
            time.sleep(min(float(wait) if wait.isdigit() else 1.0, LONGEST_BUSY_WAIT))
            response = client.request(method, path, json=body)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(f"cannot reach {where}: {reason}; is the server running?") from error
    if response.status_code >= 300:
        text = " ".join(response.text.split())[:200]
        raise Unreachable(f"{where} answers {response.status_code}: {text}")
    try:
        return response.json()
    except ValueError as error:
        raise Unreachable(f"{where} does not answer with JSON") from error
