"""Step 3 of DeepSpeed-Chat, which logs no KL."""

from klaudit.exchange.frameworks.framework import Framework

DEEPSPEED_CHAT = Framework(
    name="deepspeed-chat",
    algorithm="ppo",
    title="DeepSpeed-Chat",
    source=(
        "microsoft/DeepSpeedExamples 2d1f3b38 applications/DeepSpeed-Chat/training/step3_rlhf_finetuning/main.py, the tags that its "
        "SummaryWriter gets"
    ),
    detected_by=(frozenset({"reward", "actor_loss_sum", "critic_loss_sum"}),),
    prefix="",
    temperature_argument=None,
    score=("reward",),
    notes=("it logs no KL, though its reward has one (k1, coefficient 0.1 in the code); measure its checkpoints instead",),
)
