"""Load a language model, sample from it, score what it wrote: the one place that does, for ppo, drift and probe.

Import from the modules: this file stays light, so that nobody pays for torch who does not use it.
"""

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
"""The model that `klaudit.models.packaged` makes out of a Python package."""
