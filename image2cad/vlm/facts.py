"""What is known of a base without fetching its weights: its config and the size of its pictures.

    facts = base_facts("llava-hf/llava-1.5-7b-hf")      # facts.config, facts.picture_tokens

The configs of the bases that the docs name ship with the project (configs/), with what gives shapes
and nothing else, so that a run can be planned without a network. Left out: weights, processors.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoConfig

from image2cad.common import InputError
from image2cad.vlm.bases import check_size, load_processor
from image2cad.vlm.loading import LOADER_ERRORS, locate
from image2cad.vlm.prompting import encode_picture

CONFIGS = Path(__file__).parent / "configs"
PICTURE_SIZE = (448, 448)
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
PICTURE_TOKENS = 256  # where neither a config nor a file of ours says it


@dataclass(frozen=True)
class BaseFacts:
    """config: of transformers; picture_tokens: that one of our pictures (448 x 448) becomes;
    local: the weights lie here and need no download; assumed: no one says how many tokens."""

    config: Any
    picture_tokens: int
    local: bool
    assumed: bool = False


def base_facts(name: str | Path, image_size: int | None = None) -> BaseFacts:
    """Of a folder, of a base whose config ships with the project, or of one on the hub.

    image_size: as `load_base` has it. Raises InputError, naming those that ship, where there is no
    config of it to be had, and as `load_base` does where the base sees no pictures of that size.
    """
    folder = Path(locate(name))
    if folder.is_dir():
        config = _config(name, str(folder))
        if tokens := _counted(folder, config, image_size):
            return BaseFacts(config, tokens, True)
        return _by_config(config, image_size, True)
    shipped = shipped_bases()
    if str(name) in shipped:
        known = shipped[str(name)]
        config = AutoConfig.for_model(**known["config"])
        tokens = known["picture_tokens"] if image_size is None else resized(config, image_size)
        return BaseFacts(config, tokens, False)
    return _by_config(_config(name, str(name)), image_size, False)


@cache
def shipped_bases() -> dict[str, dict[str, Any]]:
    """{name on the hub: {"picture_tokens", "config"}} of every file in configs/."""
    files = sorted(CONFIGS.glob("*.json"))
    read = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return {one["name"]: one for one in read}


def _config(name: str | Path, where: str) -> Any:
    try:
        return AutoConfig.from_pretrained(where)
    except LOADER_ERRORS as error:
        raise InputError(
            f"there is no config of {name} here, and the hub does not have it or is not reached; "
            f"known without it: {', '.join(shipped_bases())}"
        ) from error


def _counted(folder: Path, config: Any, image_size: int | None) -> int:
    """Tokens of a blank picture by the folder's own processor; 0 where it has none."""
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        return 0
    try:
        processor = load_processor(str(folder), image_size=image_size)
    except LOADER_ERRORS as error:
        raise InputError(f"{folder} has no processor that can be loaded: {error}") from error
    tokens = encode_picture(processor, Image.new("RGB", PICTURE_SIZE, "white"))["input_ids"]
    return int((tokens == picture_token(config)).sum())


def picture_token(config: Any) -> int:
    """The id that stands for a piece of a picture."""
    for name in ("image_token_id", "image_token_index"):
        if getattr(config, name, None) is not None:
            return int(getattr(config, name))
    raise InputError(f"this base is a {config.model_type}, whose config names no picture token")


def _by_config(config: Any, image_size: int | None, local: bool) -> BaseFacts:
    if image_size is not None:
        return BaseFacts(config, resized(config, image_size), local)
    said = getattr(config, "image_seq_length", None)
    return BaseFacts(config, int(said or PICTURE_TOKENS), local, not said)


def resized(config: Any, side: int) -> int:
    """Tokens of one of our pictures seen at about `side` pixels a side, from the config alone.

    What bases.resize_pictures has a processor do; it raises InputError where that does.
    """
    sight = config.vision_config
    size = sight.image_size if hasattr(sight, "image_size") else 0
    tile = size if isinstance(size, int) else size[0]
    how = check_size(config.model_type, side, tile)
    if how in ("pixels", "frames"):
        piece = sight.patch_size * sight.spatial_merge_size
        return _pieces(side, piece) ** 2
    if how == "tiles":
        tiles, tokens = round(side / tile) ** 2, int(config.image_seq_length)
    else:
        tiles = math.ceil(side / tile) ** 2
        tokens = (tile // sight.patch_size // config.scale_factor) ** 2
    return tokens * (tiles + 1 if tiles > 1 else 1)  # and the whole picture, small


def _pieces(side: int, piece: int) -> int:
    """Pieces a side of one of our pictures, where as many pixels as `side` has are most and least.

    As `smart_resize` of transformers' Qwen2-VL and GLM-4V rounds.
    """
    own = round(PICTURE_SIZE[0] / piece) * piece
    if own > side:
        return max(math.floor(side / piece), 1)
    return own // piece if own == side else math.ceil(side / piece)
