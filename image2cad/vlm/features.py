"""What tower and projector make of a picture: taken out of a base, and given back to it later.

    features = picture_features(model, fields)          # of one sample, on the model's device
    logits = model(**batch, mm_encoder_outputs=encoder_outputs([features, ...])).logits

Bases want their features in three forms; which one is read from the shape. Left out: keeping them
on disk (training/vision_cache.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from packaging.version import Version
from transformers.modeling_outputs import BaseModelOutputWithPooling

ONE_TENSOR = ["gemma3", "internvl"]
if Version(transformers.__version__) < Version("5.21"):
    ONE_TENSOR.append("smolvlm")


def picture_features(model: Any, fields: dict[str, torch.Tensor]) -> torch.Tensor:
    """The features of one sample's pictures, from all that is not text of `encode_picture`.

    (tokens, width) for most bases; (tiles, tokens, width) for Gemma 3 and InternVL, which take
    one tensor; (levels, 1, tokens, width) for Qwen3-VL, whose later layers see more of the tower.
    """
    found = model.get_image_features(**fields, return_dict=True)
    if isinstance(found.pooler_output, torch.Tensor):
        return found.pooler_output
    levels = [found.pooler_output, *(getattr(found, "deepstack_features", None) or [])]
    joined = [torch.cat(list(level)) for level in levels]
    return joined[0] if len(joined) == 1 else torch.stack(joined)[:, None]


def features_shape(config: Any, tokens: int) -> tuple[int, ...]:
    """The shape of `picture_features` of one picture of so many tokens, from the config alone."""
    width = int(config.get_text_config().hidden_size)
    if deeper := getattr(config.vision_config, "deepstack_visual_indexes", None):
        return len(deeper) + 1, 1, tokens, width
    return (1, tokens, width) if config.model_type in ONE_TENSOR else (tokens, width)


def encoder_outputs(features: Sequence[torch.Tensor]) -> dict[str, Any]:
    """What a base's forward pass takes as `mm_encoder_outputs`, of the features of many samples."""
    dimensions = features[0].dim()
    if dimensions == 2:
        return {"image": BaseModelOutputWithPooling(pooler_output=list(features))}
    if dimensions == 3:
        return {"image": BaseModelOutputWithPooling(pooler_output=torch.cat(list(features)))}
    from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

    pooled, *deeper = [[one[level, 0] for one in features] for level in range(len(features[0]))]
    output = BaseModelOutputWithDeepstackFeatures(pooler_output=pooled, deepstack_features=deeper)
    return {"image": output}
