"""Fine-tuning and reinforcement."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.training.examples import CodeDataset, collate
    from image2cad.training.grpo import Plan, check_enough, fit_grpo
    from image2cad.training.rejection import best_of
    from image2cad.training.rewards import Reward, format_reward, iou_reward, length_reward
    from image2cad.training.rewards import likeness_reward, validity_reward
    from image2cad.training.supervised import Settings, as_dict, fit, labelled_loss, memory_text
    from image2cad.training.synthetic import fresh_rows
    from image2cad.training.vision_cache import features_for

__all__ = [
    "CodeDataset", "Plan", "Reward", "Settings", "as_dict", "best_of", "check_enough", "collate",
    "features_for", "fit", "fit_grpo", "format_reward", "fresh_rows", "iou_reward", "labelled_loss",
    "length_reward", "likeness_reward", "memory_text", "validity_reward",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
