"""GPU memory of learning from rewards, by the planner: predicted, nothing is measured.

    PYTHONPATH=. python benchmarks/grpo_budget.py
    PYTHONPATH=. python benchmarks/grpo_budget.py --programs 32 --rows 4 --tokens 256 --gpu L4

Two moments count. While programs are written there are the keys and values of all of them; while a
pass is trained there are its logits, all of them at once, and activations. TRL's loss is taken to
need what ours does with all logits. Left out: the tower's pass, fragments while writing.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace

from image2cad.training import card_named
from image2cad.training.planning.allocator import needed
from image2cad.training.planning.cards import CONTEXT, GIB
from image2cad.training.planning.fakes import Work
from image2cad.training.planning.plans import PROMPT_TOKENS
from image2cad.training.planning.steps import answers_use, estimated_use, training_use
from image2cad.training.planning.tracking import OPTIMISER, PARTS
from image2cad.vlm import base_facts, quiet

BASES = (  # and --image-size
    ("Qwen/Qwen3-VL-2B-Instruct", None),
    ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", 384),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=64, help="written at a time")
    parser.add_argument("--rows", type=int, default=4, help="programs a pass")
    parser.add_argument("--tokens", type=int, default=256, help="of a program, at most")
    parser.add_argument("--lora-r", type=int, default=16)
    parser.add_argument("--gpu", default="T4")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    quiet()
    card = card_named(options.gpu)
    print(f"predicted, {card.name}, {card.memory / GIB:.1f} GiB; CUDA's context included; GiB:")
    for name, image_size in BASES:
        facts = base_facts(name, image_size)
        for load_in_4bit in (False, True):
            work = Work(
                facts.picture_tokens + PROMPT_TOKENS + options.tokens,
                options.tokens,
                facts.picture_tokens,
                rows=options.rows,
                load_in_4bit=load_in_4bit,
                r=options.lora_r,
                lora_dropout=0.0,
                optim="adamw_torch",
                loss_in_chunks=False,
                accumulated=True,
                padded=True,
            )
            training = training_use(facts.config, work, card)
            written = replace(work, rows=options.programs, padded=False)
            writing = estimated_use(answers_use, facts.config, written, card)
            states = training.parts[OPTIMISER]  # stay while programs are written
            for moment, held, use in (
                ("writing", writing.peak + states, writing),
                ("training", needed(training.events), training),
            ):
                found = use.parts | {OPTIMISER: states}
                parts = [f"{part} {found.get(part, 0) / GIB:.2f}" for part in PARTS]
                print(
                    f"{name}, {image_size or 'own'} px, {'4 bits' if load_in_4bit else '16 bits'}, "
                    f"{moment}: {(held + CONTEXT) / GIB:.2f} ({', '.join(parts)})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
