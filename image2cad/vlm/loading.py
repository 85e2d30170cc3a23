"""Load a base model, attach LoRA, save the adapter, load it again.

    model, processor = load_base("llava-hf/llava-1.5-7b-hf", load_in_4bit=True)
    model = attach_lora(model, r=16, lora_alpha=32, lora_dropout=0.05)
    ...
    save_adapter(model, processor, Path("runs/mine/adapter"), base, card)
    model, processor = load_model("runs/mine/adapter")      # in another process

A base is a folder (models/nano) or a name on the hub. LoRA goes to the language
model's linear layers only; the vision tower and the projector stay frozen. Left
out: what differs between bases (bases.py), training (training/supervised.py), and what follows it:
the model card, merging, the hub (publishing.py).
"""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig

from image2cad.common import ROOT, InputError
from image2cad.vlm.bases import (
    architecture_named,
    check_float16,
    load_processor,
    lora_targets,
    unquantised,
)

LOADER_ERRORS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


def load_base(
    name: str | Path, load_in_4bit: bool = False, image_size: int | None = None
) -> tuple[Any, Any]:
    """The base model and its processor, on the GPU if there is one.

    `name` is a folder, relative to here or to the repository, or a name on the hub.
    `load_in_4bit` stores the language model's linear layers in 4 bits (NF4, double
    quantisation); the rest stays in the machine's precision. `image_size`: pixels a side at which
    it sees a square picture, where the base leaves that open; None: its own. Raises InputError if
    the base cannot be reached, is no image-and-text model, or cannot be had as asked for.
    """
    where = locate(name)
    dtype = precision()
    options: dict[str, Any] = {"dtype": dtype}
    try:
        processor = load_processor(where, image_size=image_size)
        kind = AutoConfig.from_pretrained(where).model_type
    except LOADER_ERRORS as error:
        raise InputError(_why_not(name, error)) from error
    known = architecture_named(kind)  # before 14 GB are fetched
    if dtype == torch.float16:
        check_float16(kind)
    if load_in_4bit:
        options["quantization_config"] = four_bits(dtype, unquantised(kind))
    if torch.cuda.is_available():
        options["device_map"] = {"": torch.cuda.current_device()}
    try:
        model = AutoModelForImageTextToText.from_pretrained(where, **options)
    except LOADER_ERRORS as error:
        raise InputError(_why_not(name, error)) from error
    for module in model.modules():
        # On CPUs with bfloat16, bitsandbytes packs weights at the first evaluation and then has
        # no gradient for them: training after a validation would go wrong without a word.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if known.remark:
        print(known.remark)
    return model, processor


def four_bits(dtype: torch.dtype, skipped: list[str]) -> BitsAndBytesConfig:
    """Storage in NF4 with double quantisation, of all linear layers but the `skipped` ones."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=skipped,
    )


def attach_lora(
    model: Any,
    r: int = 16,
    lora_alpha: int = 32,
    lora_dropout: float = 0.05,
    use_rslora: bool = False,
    use_dora: bool = False,
    target_modules: str = "all-linear",
    layers_to_transform: str | None = None,
) -> Any:
    """Freeze `model` and add trainable LoRA matrices, in float32, to its language model.

    The settings mean what they mean in PEFT's LoraConfig. use_rslora: scaled by
    lora_alpha / sqrt(r), for large r (Kalajdzievski 2023). use_dora: a trained length for every
    row besides (Liu et al. 2024). target_modules: "all-linear", or names of layers with commas;
    layers_to_transform: as "20-31" or "0,1,2", None: all. Raises InputError if the model has no
    such layer.
    """
    targets = lora_targets(model, target_modules, layers_to_transform)
    if not any(re.fullmatch(targets, name) for name, _ in model.named_modules()):
        raise InputError(f"this base has no layer that {target_modules} names")
    config = LoraConfig(
        r=r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        use_rslora=use_rslora,
        use_dora=use_dora,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    _ignore_old_torchao()
    return get_peft_model(model, config, autocast_adapter_dtype=True)


def _ignore_old_torchao() -> None:
    """Let PEFT do without a torchao that is too old for it, as Colab's is.

    PEFT asks of every layer that is not in 4 bits whether it is one of torchao's, and raises where
    it finds an old version, though no layer here ever is.
    """
    from peft.tuners.lora import torchao

    try:
        torchao.is_torchao_available()
    except ImportError:
        torchao.is_torchao_available = lambda: False


def save_adapter(model: Any, processor: Any, folder: Path, base: str | Path, card: str) -> None:
    """Write adapter, processor and model card to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    file = folder / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = portable(base)
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def load_trainable(
    name: str | Path, load_in_4bit: bool = False, r: int = 16, lora_alpha: int = 32
) -> tuple[Any, Any, str]:
    """A saved adapter to train on, or a base with a new one; its processor; the base's name.

    r, lora_alpha: of a new adapter. Raises InputError as `load_model` and `attach_lora` do.
    """
    if not (Path(locate(name)) / "adapter_config.json").is_file():
        model, processor = load_base(name, load_in_4bit)
        return attach_lora(model, r, lora_alpha, lora_dropout=0.0), processor, str(name)
    model, processor = load_model(name, load_in_4bit, trainable=True)
    return model, processor, str(model.active_peft_config.base_model_name_or_path)


def load_model(
    name: str | Path, load_in_4bit: bool = False, trainable: bool = False
) -> tuple[Any, Any]:
    """A base, or a saved adapter on its base, ready to generate.

    trainable: with gradients for the adapter. Raises InputError if it, or the base it names,
    cannot be reached.
    """
    folder = Path(locate(name))
    if not (folder / "adapter_config.json").is_file():
        model, processor = load_base(name, load_in_4bit)
        return model.eval(), processor
    try:
        base = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    except LOADER_ERRORS as error:
        raise InputError(f"{folder} holds no whole adapter: {_first_line(error)}") from error
    if not base:
        raise InputError(f"{folder} does not say which base its adapter belongs to")
    try:
        model, _ = load_base(base, load_in_4bit)
    except InputError as error:
        raise InputError(
            f"the adapter {folder} was trained on the base {base!r}: {error}"
        ) from error
    try:
        processor = load_processor(str(folder), locate(base))
        _ignore_old_torchao()
        model = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
        return model.eval(), processor
    except LOADER_ERRORS as error:
        raise InputError(f"{folder} holds no whole adapter: {_first_line(error)}") from error


def trainable_share(model: Any) -> str:
    """How many parameters of a model with an adapter are trained, in words.

    Numbers are counted, also where two of them share a byte.
    """
    trained, total = model.get_nb_trainable_parameters()
    return f"{trained / 1e6:.2f} M of {total / 1e6:.2f} M parameters are trained"


def quiet() -> None:
    """Silence the libraries' remarks about optional packages, which are no news to a user."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("transformers", "bitsandbytes", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\..*")


def locate(name: str | Path) -> str:
    """A folder that exists here or in the repository, else the name unchanged."""
    for folder in (Path(name), ROOT / name):
        if folder.is_dir():
            return str(folder)
    return str(name)


def portable(base: str | Path) -> str:
    """The base as an adapter should remember it: relative to the repository where it lies in it."""
    where = Path(locate(base))
    if not where.is_dir():
        return str(base)
    full = where.resolve()
    return full.relative_to(ROOT).as_posix() if full.is_relative_to(ROOT) else str(full)


def _why_not(name: str | Path, error: Exception) -> str:
    if Path(locate(name)).is_dir():
        return f"{name} is no model folder that transformers can load: {_first_line(error)}"
    return (
        f"cannot load the base model {name!r}: it is no folder here, and the hub does not have it, "
        "wants a login for it, or cannot be reached; what works offline is models/nano"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), repr(error))


def precision() -> torch.dtype:
    """float32 on a CPU, bfloat16 on a GPU that computes in it, else float16.

    By compute capability: `torch.cuda.is_bf16_supported` says yes on a T4, which emulates it.
    """
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
