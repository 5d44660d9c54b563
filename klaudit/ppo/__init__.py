"""The embedded PPO trainer for language models: `config.PPOConfig` says what to do, `trainer.PPOTrainer` does it.

`objective` is the mathematics and reads alone. Import from the modules: this file stays light, so that a bad config is refused before torch loads.
"""
