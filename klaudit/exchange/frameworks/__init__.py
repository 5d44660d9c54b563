"""What each trainer's keys mean: one file per family of trainers, one table per trainer."""

from klaudit.exchange.frameworks.areal import AREAL
from klaudit.exchange.frameworks.deepspeed_chat import DEEPSPEED_CHAT
from klaudit.exchange.frameworks.framework import CHECKED_LABELS, Framework, find_argument, find_number
from klaudit.exchange.frameworks.hugging_face import HUGGING_FACE_TRAINER
from klaudit.exchange.frameworks.klaudit_ppo import KLAUDIT_PPO
from klaudit.exchange.frameworks.nemo import NEMO_ALIGNER, NEMO_RL
from klaudit.exchange.frameworks.openrlhf import OPENRLHF
from klaudit.exchange.frameworks.skyrl import SKYRL
from klaudit.exchange.frameworks.slime import SLIME
from klaudit.exchange.frameworks.torchtune import TORCHTUNE_PPO
from klaudit.exchange.frameworks.trl_grpo import TRL_ASYNC_GRPO, TRL_GMPO, TRL_GRPO, TRL_RLOO, UNSLOTH_GRPO
from klaudit.exchange.frameworks.trl_ppo import TRL_LEGACY_PPO, TRL_PPO
from klaudit.exchange.frameworks.trl_preference import (
    TRL_BCO,
    TRL_DPO,
    TRL_KTO,
    TRL_NASH_MD,
    TRL_ONLINE_DPO,
    TRL_REFERENCE_FREE,
    TRL_XPO,
)
from klaudit.exchange.frameworks.trlx import TRLX_PPO
from klaudit.exchange.frameworks.verl import VERL

FRAMEWORKS: tuple[Framework, ...] = (
    KLAUDIT_PPO,
    TRL_PPO,
    TRL_LEGACY_PPO,
    TRL_GRPO,
    TRL_GMPO,
    TRL_RLOO,
    TRL_ASYNC_GRPO,
    UNSLOTH_GRPO,
    TRL_ONLINE_DPO,
    TRL_XPO,
    TRL_NASH_MD,
    TRL_DPO,
    TRL_BCO,
    TRL_REFERENCE_FREE,
    TRL_KTO,
    VERL,
    OPENRLHF,
    NEMO_RL,
    NEMO_ALIGNER,
    SKYRL,
    SLIME,
    AREAL,
    TORCHTUNE_PPO,
    TRLX_PPO,
    DEEPSPEED_CHAT,
    HUGGING_FACE_TRAINER,
)

__all__ = [
    "AREAL",
    "CHECKED_LABELS",
    "DEEPSPEED_CHAT",
    "FRAMEWORKS",
    "HUGGING_FACE_TRAINER",
    "KLAUDIT_PPO",
    "NEMO_ALIGNER",
    "NEMO_RL",
    "OPENRLHF",
    "SKYRL",
    "SLIME",
    "TORCHTUNE_PPO",
    "TRLX_PPO",
    "TRL_ASYNC_GRPO",
    "TRL_BCO",
    "TRL_DPO",
    "TRL_GMPO",
    "TRL_GRPO",
    "TRL_KTO",
    "TRL_LEGACY_PPO",
    "TRL_NASH_MD",
    "TRL_ONLINE_DPO",
    "TRL_PPO",
    "TRL_REFERENCE_FREE",
    "TRL_RLOO",
    "TRL_XPO",
    "UNSLOTH_GRPO",
    "VERL",
    "Framework",
    "find_argument",
    "find_number",
]
