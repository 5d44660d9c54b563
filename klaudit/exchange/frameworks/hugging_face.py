"""Any Trainer of transformers whose keys no other table knows."""

from klaudit.exchange.frameworks.framework import Framework

HUGGING_FACE_TRAINER = Framework(
    name="transformers",
    algorithm="unknown",
    title="any Hugging Face Trainer",
    slug="transformers",
    source="transformers 5.23 transformers/trainer.py, `Trainer.log`",
    checked="run",
    page="hugging-face-trainer",
    detected_by=(frozenset({"loss", "learning_rate", "grad_norm"}),),
    # Whatever is called a KL makes it a trainer that nobody knows.
    excluded_by=frozenset({"kl", "kl_div", "kl_divergence", "mean_kl", "kl_mean"}),
    trainer_classes=frozenset({"Trainer", "Seq2SeqTrainer", "SFTTrainer"}),
    argument_classes=frozenset({"TrainingArguments", "Seq2SeqTrainingArguments", "SFTConfig"}),
    temperature_argument=None,
    is_window_mean=True,
    notes=("it logs no KL; only a live probe, or measuring the checkpoints, gives the KL to a reference",),
)
