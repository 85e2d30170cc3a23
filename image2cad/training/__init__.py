"""Fine-tuning and reinforcement."""

from typing import TYPE_CHECKING

from image2cad.common.lazy import load

if TYPE_CHECKING:
    from image2cad.training.checkpoints import rows_begun
    from image2cad.training.examples import CodeDataset, collate
    from image2cad.training.grpo import check_enough, grpo_config, train_grpo
    from image2cad.training.planning.cards import Card, card_here, card_named
    from image2cad.training.planning.plans import Plan, plan_run
    from image2cad.training.preflight import check_base, check_login, check_tracker, fetch_base
    from image2cad.training.preflight import machine_text
    from image2cad.training.redrawing import redrawn
    from image2cad.training.rejection import best_of
    from image2cad.training.rewards import Reward, iou_reward, validity_reward
    from image2cad.training.supervised import TrainingSettings, fine_tune, labelled_loss
    from image2cad.training.supervised import memory_text
    from image2cad.training.synthetic import fresh_rows
    from image2cad.training.vision_cache import features_for

__all__ = [
    "Card", "CodeDataset", "Plan", "Reward", "TrainingSettings", "best_of", "card_here",
    "card_named", "check_base", "check_enough", "check_login", "check_tracker", "collate",
    "features_for", "fetch_base", "fine_tune", "fresh_rows", "grpo_config", "iou_reward",
    "labelled_loss", "machine_text", "memory_text", "plan_run", "redrawn", "rows_begun",
    "train_grpo", "validity_reward",
]  # fmt: skip


def __getattr__(name: str) -> object:
    return load(__name__, name)
