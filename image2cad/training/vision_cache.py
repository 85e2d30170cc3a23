"""Picture features, computed once per picture and kept on disk.

    folder = cache_features(model, processor, images, Path("runs/features"))
    features = read_features(folder, images[0])         # as vlm/features.py gives them

Tower and projector are frozen, so what they make of a picture never changes: training reads it
from disk instead of computing it in every epoch. Features are kept in the precision in which the
base computes, 4.7 MB a picture for LLaVA-1.5-7B in float16. Left out: bases whose forward pass
does not take such features; `takes_features` tells.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save
from tqdm.auto import tqdm

from image2cad.common import write_whole
from image2cad.data import Sample, outlines
from image2cad.vlm import PADDING_VALUES, encode_picture, picture_features, sight_parameters

_TENSOR = "features"  # its name in a file


def takes_features(model: Any) -> bool:
    """Whether the base's forward pass takes what `get_image_features` gave."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "mm_encoder_outputs" in inspect.signature(base.forward).parameters


def features_for(
    model: Any, processor: Any, parts: Sequence[Sequence[Sample]], folder: Path
) -> Path | None:
    """`cache_features` of all the samples, or None with the reason in one line."""
    each = [len(sizes) for samples in parts for _, sizes, _ in outlines(samples)]
    count = sum(each)
    why = "this version of the base takes none"
    if takes_features(model):
        first = next(sample.image for samples in parts for sample in samples)
        why = room_for(model, processor, first, count, folder)
    if why:
        print(f"picture features are computed every time: {why}")
        return None
    seen = ((sample.image, *sample.views) for samples in parts for sample in samples)
    images = (picture for pictures in seen for picture in pictures)
    return cache_features(model, processor, images, folder, count)


def cache_features(
    model: Any,
    processor: Any,
    images: Iterable[Image.Image],
    folder: Path,
    count: int | None = None,
    progress: bool = True,
) -> Path:
    """Compute the features that are not on disk yet; return the subfolder of this tower.

    count: how many pictures, for the progress bar. Every picture is a file of its own, written
    whole or not at all, so that an interrupted run goes on where it stopped.
    """
    place = folder / fingerprint(model, processor)
    place.mkdir(parents=True, exist_ok=True)
    for image in tqdm(images, "picture features", count, disable=not progress):
        file = _file(place, image)
        if not file.is_file():
            file.parent.mkdir(exist_ok=True)
            features = save({_TENSOR: _features(model, processor, image)})
            write_whole(file, features, shared=True)
    return place


def read_features(place: Path, image: Image.Image) -> torch.Tensor:
    """The features of a picture that `cache_features` has seen."""
    return load_file(_file(place, image))[_TENSOR]


def room_for(model: Any, processor: Any, image: Image.Image, count: int, folder: Path) -> str:
    """Why `count` such pictures do not fit on the disk, or nothing. A tenth stays free."""
    one = _features(model, processor, image)
    there = sum(1 for _ in (folder / fingerprint(model, processor)).rglob("*.safetensors"))
    wanted = max(count - there, 0) * one.numel() * one.element_size()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if wanted <= 0.9 * free:
        return ""
    return f"{count} pictures need {wanted / 1e9:.0f} GB, {free / 1e9:.0f} GB are free in {folder}"


def fingerprint(model: Any, processor: Any) -> str:
    """A name for tower, projector and preparation of pictures: other weights, other name."""
    digest = hashlib.sha256(processor.image_processor.to_json_string().encode())
    for name, parameter in sight_parameters(model):
        sample = parameter.detach().flatten()
        sample = sample[:: max(len(sample) // 256, 1)]
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(sample.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def _features(model: Any, processor: Any, image: Image.Image) -> torch.Tensor:
    fields = {k: v for k, v in encode_picture(processor, image).items() if k not in PADDING_VALUES}
    fields = {name: value.to(model.device) for name, value in fields.items()}
    fields["pixel_values"] = fields["pixel_values"].to(model.dtype)
    training = model.training
    model.eval()
    found = picture_features(model, fields)
    model.train(training)
    return found.cpu().contiguous()


def _file(place: Path, image: Image.Image) -> Path:
    pixels = image.convert("RGB")
    digest = hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).hexdigest()
    return place / digest[:2] / f"{digest[2:34]}.safetensors"
