"""Content digests: a model is what its weights are, not what it is called."""

from klaudit.digests.file import Progress, digest_file, digest_text
from klaudit.digests.tokenizer import digest_chat_template, digest_tokenizer
from klaudit.digests.weights import Weights, digest_weights, find_weights

__all__ = [
    "Progress",
    "Weights",
    "digest_chat_template",
    "digest_file",
    "digest_text",
    "digest_tokenizer",
    "digest_weights",
    "find_weights",
]
