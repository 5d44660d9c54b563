"""Settings as JSON, without what gives access to anything: known by its name, by its form, or by the environment that it came from.

A secret is replaced and not left out, so that a reader sees that something was set. In doubt a value is taken for a secret: a lost setting
costs a look into the script, a recorded key costs an account.
"""

import dataclasses
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from numbers import Integral, Real
from typing import Any, Literal

from klaudit.records.non_finite import encode_float

SECRET = "(secret, not recorded)"
"""What stands in a secret's place."""

SECRET_WORD = re.compile(r"auth|oauth|authorization|bearer|cookies?|creds|dsn|environ|jwt|otp|pat|pwd|sig")
"""A setting with such a word in its name is secret, numbers included. Of a process's environment, only the names are recorded."""

SECRET_STEM = re.compile(
    r"password|passwd|passphrase|secret|credential|(api|auth|access|hub|hf|refresh|session)token|"
    r"(api|access|account|auth|client|deploy|encryption|license|master|private|service|session|shared|signing|ssh|storage|subscription|wandb)key|"
    r"connection(string|url)|connstr|webhookurl|envvars|environmentvariables"
)
"""Likewise, wherever it stands in a name without its separators."""

TOKEN_WORD = re.compile(r"tokens?")
"""Texts under these are secret and numbers are not: trainers count tokens."""

VOCABULARY_WORD = re.compile(
    r"eos|bos|pad|unk|sep|cls|mask|stop|special|additional|added|image|video|audio|start|end|begin|think|forced|suppress|decoder|boi|eoi|"
    r"prefix|suffix|middle|newline|max|min|num|n|mean|loss|agg|batch|per|level"
)
"""With one of these beside it a token is one of the model's vocabulary, or of a batch."""

KEY_WORD = re.compile(r"keys?|access|login|pass|sas|cert|certificate|wandb")
"""Under these a long random-looking text is secret; a short or speaking one, such as the name of a column, is not."""

MOST_NESTED = 40
MOST_ITEMS = 1_000
MOST_CHARACTERS = 20_000
"""Of one text: a longer one is no setting, and looking for secrets in it would take time."""
MOST_EXACT_INTEGER = 2**53
"""Beyond it readers of JSON round; `1e30` as a tokenizer's maximal length is usual."""
SHORTEST_ENVIRONMENT_SECRET = 8

Secrecy = Literal["open", "key", "token", "secret"]
"""What a name says of its value: nothing; secret where it looks random; secret where it is a text; secret."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_COUNT = re.compile(r"[+-]?\d{1,15}(\.\d{1,15})?")
_RANDOM = re.compile(r"[A-Za-z0-9+/=_.~-]{20,}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]+")
_NAMED = re.compile(r"""(?<![\w.-])-{0,2}(?P<name>[A-Za-z_][\w.-]*)\\*["']?\s*[=:]\s*|(?<!\S)--?(?P<flag>[A-Za-z][\w.-]*)\s+(?!-)""")
"""`name=`, `name: `, `"name": `, `--name `: a value follows."""
_VALUE = re.compile(r"""(?P<quote>\\*["'])(?P<quoted>.*?)(?=(?P=quote)|\Z)|(?P<bare>\S+)""", re.DOTALL)
_FORMS = tuple(
    re.compile(form, re.DOTALL)
    for form in (
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        r"(?i:(?P<keep>authorization\\*[\"']?\s*[=:]\s*\\*[\"']?)(?:[a-z]+\s+)?[^\s\"'\\]+)",
        r"(?i:(?P<keep>\bbearer\s+)[a-z0-9._~+/=-]{8,})",
        r"(?P<keep>://[^\s/@:]{0,200}:)(?!\d{1,5}(?:[/\s]|\Z))[^\s\"'<>]{1,500}(?=@)",
        r"(?P<keep>://)[^\s/@:]{16,500}(?=@)",
        r"(?P<keep>https://(?:hooks\.slack\.com|(?:\w+\.)?discord(?:app)?\.com/api/webhooks)/)[^\s\"']+",
        r"(?i:(?P<keep>[?&](?:sig|x-amz-signature|x-amz-security-token)=)[^&\s\"']+)",
        r"(?<![A-Za-z0-9])(?:"
        r"hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}"
        r"|sk-(?=[\w-]{0,200}\d)[\w-]{16,}|[srp]k_(?:live|test)_[A-Za-z0-9]{10,}"
        r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|gl(?:pat|ptt|dt|rt)-[\w-]{16,}"
        r"|(?:AKIA|ASIA|AGPA|AIDA|AROA|ABIA|ACCA)[0-9A-Z]{16}"
        r"|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}"
        r"|AIza[\w-]{30,}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"
        r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"
        r"|wandb_v\d_\w{20,}|nvapi-[\w-]{20,}|r8_[A-Za-z0-9]{30,}|gsk_[A-Za-z0-9]{20,}|SG\.[\w-]{16,}\.[\w-]{16,}"
        r"|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{16,}|dckr_pat_[\w-]{20,}|tgp_v\d_[\w-]{20,}|dapi[0-9a-f]{32}"
        r")",
    )
)
"""What keys look like wherever they stand: PEM keys, HTTP credentials, passwords in URLs, webhooks, signed URLs; keys of Hugging Face, OpenAI and
Anthropic, Stripe, GitHub, GitLab, AWS, Slack, Google, W&B, NVIDIA, Replicate, Groq, SendGrid, npm, PyPI, Docker, Together, Databricks; JSON web tokens."""


def describe_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A trainer's arguments as JSON, with SECRET in the place of every secret at any depth.

    Numbers that JSON cannot hold are texts: "NaN", "Infinity", and integers beyond 2**53.
    """
    return _Describer(find_environment_secrets(os.environ)).describe_mapping(arguments, under="open", above=frozenset())


def mask_secrets(text: str, *, known: Iterable[str] = ()) -> str:
    """A text with SECRET in the place of every secret in it: keys by their form, `name=value` and `--name value` by the name.

    Args:
        text: such as a command line or a URL.
        known: texts that are secret, longest first.
    """
    for secret in known:
        text = text.replace(secret, SECRET)
    # What is masked already holds a comma and blanks, which would end a value.
    return SECRET.join(_mask_named_values(_mask_forms(part)) for part in text.split(SECRET))


def judge_name(name: str) -> Secrecy:
    """What a setting's name says of its value."""
    words = [word.lower() for word in _WORD.findall(name)]
    if SECRET_STEM.search("".join(words)) or any(map(SECRET_WORD.fullmatch, words)):
        return "secret"
    if any(map(TOKEN_WORD.fullmatch, words)):
        return "key" if any(map(VOCABULARY_WORD.fullmatch, words)) else "token"
    return "key" if any(map(KEY_WORD.fullmatch, words)) else "open"


def is_secret_text(text: str, *, under: Secrecy) -> bool:
    """Whether a text is secret as a whole, for the name that it stands under."""
    if under == "open" or not text:
        return False
    if under == "secret" or (under == "token" and not _COUNT.fullmatch(text)):
        return True
    return _RANDOM.fullmatch(text) is not None and looks_random(text)


def looks_random(text: str) -> bool:
    """Whether a text of 20 characters or more has digits, and the entropy of a key: 3 bits a character where all are hexadecimal, else 3.8."""
    shares = [text.count(character) / len(text) for character in set(text)]
    entropy = -sum(share * math.log2(share) for share in shares)
    return any(character.isdigit() for character in text) and entropy >= (3.0 if _HEXADECIMAL.fullmatch(text) else 3.8)


def find_environment_secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values of the variables that are secret by their names, longest first: they may have been copied into any setting."""
    found = {
        value
        for name, value in environment.items()
        if len(value) >= SHORTEST_ENVIRONMENT_SECRET and judge_name(name) in ("secret", "token") and not _COUNT.fullmatch(value)
    }
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


class _Describer:
    """Turns values into JSON; `above` holds the ids of what a value is nested in."""

    def __init__(self, known: tuple[str, ...]) -> None:
        self._known = known

    def describe_mapping(self, mapping: Mapping[Any, Any], *, under: Secrecy, above: frozenset[int], parent: str = "") -> dict[str, Any]:
        if isinstance(mapping, type(os.environ)):
            under = "secret"
        described: dict[str, Any] = {}
        for key in mapping:
            name = str(key)
            value = _try(lambda key=key: mapping[key])  # type: ignore[misc]
            # {"wandb": {"key": "..."}} says together what neither name says.
            judged = _strictest(under, judge_name(name), judge_name(f"{parent} {name}"))
            described[mask_secrets(name, known=self._known)] = self._describe(value, under=judged, above=above | {id(mapping)}, parent=name)
        # {"name": "HF_TOKEN", "value": "..."}, as the files of a cluster list an environment.
        if described.get("value") and isinstance(described.get("name"), str) and judge_name(described["name"]) in ("secret", "token"):
            described["value"] = SECRET
        return described

    def _describe(self, value: Any, *, under: Secrecy, above: frozenset[int], parent: str) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if id(value) in above or len(above) > MOST_NESTED:
            return "(nested in itself or too deep, not recorded)"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            above |= {id(value)}
            value = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return self.describe_mapping(value, under=under, above=above, parent=parent)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._describe_items(value, under=under, above=above | {id(value)}, parent=parent)
        return self._describe_single(value, under=under)

    def _describe_items(self, items: Collection[Any], *, under: Secrecy, above: frozenset[int], parent: str) -> list[Any] | str:
        if len(items) > MOST_ITEMS:
            return f"({len(items)} items, not recorded)"
        described: list[Any] = []
        flag = ""
        for item in sorted(items, key=str) if isinstance(items, (set, frozenset)) else items:
            # ["--hub-token", "..."], as a command line is split.
            named = judge_name(flag) if flag and not str(item).startswith("--") else "open"
            described.append(self._describe(item, under=_strictest(under, named), above=above, parent=parent))
            flag = item if isinstance(item, str) and item.startswith("-") and "=" not in item else ""
        return described

    def _describe_single(self, value: Any, *, under: Secrecy) -> Any:
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, Real):
            return SECRET if under == "secret" else _encode_number(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return f"({len(value)} bytes, not recorded)"
        text = str(value) if isinstance(value, str) else str(_try(lambda: str(value)))
        if is_secret_text(text, under=under):
            return SECRET
        return f"({len(text)} characters, not recorded)" if len(text) > MOST_CHARACTERS else mask_secrets(text, known=self._known)


def _try(read: Callable[[], Any]) -> Any:
    """What a foreign object gives, or why it gives nothing: a setting that cannot be read stops no training."""
    try:
        return read()
    except Exception as error:
        return f"(cannot be read: {type(error).__name__})"


def _strictest(*judged: Secrecy) -> Secrecy:
    order: tuple[Secrecy, ...] = ("open", "key", "token", "secret")
    return max(judged, key=order.index)


def _encode_number(value: Real) -> float | str | bool | None:
    if isinstance(value, Integral):
        number = int(value)
        return number if abs(number) <= MOST_EXACT_INTEGER else str(number)
    return encode_float(float(value))


def _mask_forms(text: str) -> str:
    for form in _FORMS:
        text = form.sub(lambda found: (found.groupdict().get("keep") or "") + SECRET, text)
    return text


def _mask_named_values(text: str) -> str:
    parts: list[str] = []
    done = 0
    for found in _NAMED.finditer(text):
        under = judge_name(found["name"] or found["flag"])
        if under == "open" or found.start() < done:
            continue
        value = _VALUE.match(text, found.end())
        if value is None:
            continue
        inner = "quoted" if value["bare"] is None else "bare"
        content = value[inner].rstrip(",;)]}&\"'\\") if inner == "bare" else value[inner]
        is_unset = content.lower() in ("none", "null", "true", "false")
        if not is_unset and not SECRET.startswith(content) and is_secret_text(content, under=under):
            parts += [text[done : value.start(inner)], SECRET]
            done = value.start(inner) + len(content)
    return "".join([*parts, text[done:]])
