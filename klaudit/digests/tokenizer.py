"""Digests of tokenizers: what text becomes, whatever the tokenizer is called."""

import json
from typing import Any

from klaudit.digests.file import digest_text

STATE = ("truncation", "padding")
"""Parts of a serialised tokenizer that every call sets anew: how it was last used, not what it is."""


def digest_tokenizer(tokenizer: Any) -> str:
    """Digest of a Hugging Face tokenizer: the whole of it as `tokenizer.json` would hold it, and its special tokens.

    A tokenizer without a serialised form goes in as its vocabulary. Not for a second thread while somebody uses the tokenizer.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    form = _to_json(tokenizer.get_vocab()) if backend is None else strip_state(backend.to_str())
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return digest_text(f"{form}\n{_to_json(special)}")


def strip_state(serialised: str) -> str:
    """A serialised tokenizer without STATE, which stands at its head; parsing a large vocabulary to leave two entries out takes 0.3 s."""
    for name in STATE:
        key = f'"{name}":'
        start = serialised.find(key)
        if start >= 0:
            _, end = json.JSONDecoder().raw_decode(serialised, start + len(key))
            serialised = serialised[:start] + serialised[end:]
    return serialised


def digest_chat_template(template: Any) -> str:
    """Digest of a chat template: of its text, or of several by name as JSON."""
    return digest_text(template) if isinstance(template, str) else digest_text(_to_json(template))


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
