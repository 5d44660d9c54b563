"""A policy as tables of plain values, as a TOML file and the ledger hold it; and the JSON Schema of that."""

import difflib
import json
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema

from klaudit.audit.description import describe_rule
from klaudit.audit.detection import DetectionParameters
from klaudit.audit.policy import Policy, PresetName, RuleSettings
from klaudit.audit.rule import Rule, RuleParameters
from klaudit.audit.rules import RULES
from klaudit.errors import InvalidConfig
from klaudit.records import Severity

Content = Mapping[str, Any]
"""`name`, `version`, `description` and `extends` as texts, `detection` and `rules.CODE` as tables. What is left out is as in the preset that it extends."""

OWN = "own"
"""The severity of a rule that judges for itself."""

SWITCHES: dict[str, Any] = {
    "enabled": (bool, Field(default=True, description="false: the rule is off")),
    "severity": (
        Literal["own", "info", "warning", "critical"],
        Field(default=OWN, description="what each finding of the rule gets instead of the rule's own judgement; own: the rule's judgement"),
    ),
}
"""What a table of a rule may say beside the rule's own parameters."""

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"
TABLE = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of a policy."""

    key: str
    """As in a file: `rules.KLA201.critical_kl`."""
    value: Any
    default: Any
    """What the preset `default` has there."""

    @property
    def is_default(self) -> bool:
        """Whether the preset `default` says the same."""
        return bool(self.value == self.default)


def derive_policy(base: Policy, content: Content, *, where: str) -> Policy:
    """The policy that says what `content` says, and what `base` says of all else.

    Args:
        base: of it `detection` and `rules` are taken over.
        content: of a file; its key `extends` is not followed.
        where: begins each error: the file's name.

    Raises:
        InvalidConfig: an unknown key, or a value that is not allowed; one line that names the place, the key, and what is known or near.
    """
    whole = {"extends": base.extends, **content}
    for name, table in (("detection", describe_detection(base)), ("rules", describe_rules(base))):
        whole[name] = _lay_over(table, content[name]) if name in content else table
    try:
        checked: Any = make_content_model().model_validate(whole)
    except ValidationError as error:
        raise InvalidConfig(f"{where}: {_explain(error)}") from error
    return Policy(
        name=checked.name,
        version=checked.version,
        rules={rule.code: _read_settings(getattr(checked.rules, rule.code), rule) for rule in RULES},
        detection=checked.detection,
        extends=checked.extends,
        description=checked.description,
    )


def describe_detection(policy: Policy) -> dict[str, Any]:
    """The table `detection` with every value."""
    return policy.detection.model_dump(mode="json")


def describe_rules(policy: Policy) -> dict[str, dict[str, Any]]:
    """The tables `rules.CODE` with every value."""
    return {rule.code: _describe_settings(policy.rules.get(rule.code), rule) for rule in RULES}


def find_differences(policy: Policy, *, base: Policy) -> dict[str, Any]:
    """The content that makes `policy` of `base`: no value that is the same in both."""
    content: dict[str, Any] = {
        "name": policy.name,
        "version": policy.version,
        "extends": base.extends,
        "detection": _subtract(describe_detection(policy), describe_detection(base)),
        "rules": _subtract(describe_rules(policy), describe_rules(base)),
    }
    return {name: value for name, value in content.items() if value != {}}


def list_settings(policy: Policy, *, default: Policy) -> Iterator[Setting]:
    """Every value of a policy, in the order of a file."""
    for name, value in describe_detection(policy).items():
        yield Setting(f"detection.{name}", value, describe_detection(default)[name])
    usual = describe_rules(default)
    for code, table in describe_rules(policy).items():
        yield from (Setting(f"rules.{code}.{name}", value, usual[code][name]) for name, value in table.items())


def describe_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy file."""
    schema = make_content_model().model_json_schema(schema_generator=_UntitledSchema)
    schema.pop("title")
    return {"$schema": SCHEMA_ID, "title": "klaudit policy", **schema}


def render_schema() -> str:
    """The JSON Schema as text, for editors that check TOML by one."""
    return json.dumps(describe_schema(), indent=2, ensure_ascii=False) + "\n"


class _UntitledSchema(GenerateJsonSchema):
    """Without titles, which only say each key again."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """See GenerateJsonSchema."""
        del schema
        return False


@cache
def make_content_model() -> type[BaseModel]:
    """The model that a whole content is checked by: every rule is a table of `rules`."""
    tables: dict[str, Any] = {
        rule.code: (table, Field(default_factory=table, description=f"{rule.name}: {describe_rule(rule).summary}"))
        for rule, table in ((rule, _make_table(rule)) for rule in RULES)
    }
    rules = create_model("Rules", __config__=TABLE, __doc__="The rules by their codes.", **tables)
    fields: dict[str, Any] = {
        "name": (str, Field(min_length=1, max_length=200, description="what audits and reports call the policy")),
        "version": (str, Field(default="1", min_length=1, max_length=200, description="which edition of it")),
        "description": (str, Field(default="", description="for whom it is; decides nothing")),
        "extends": (PresetName, Field(default="default", description="the preset whose values hold where the file says nothing")),
        "detection": (DetectionParameters, Field(default_factory=DetectionParameters)),
        "rules": (rules, Field(default_factory=rules)),
    }
    return create_model("Policy", __config__=TABLE, __doc__="Which rules of klaudit's audit are on, with which numbers.", **fields)


def _make_table(rule: type[Rule[Any]]) -> type[RuleParameters]:
    return create_model(rule.code, __base__=rule.parameters_model, __doc__=describe_rule(rule).summary, **SWITCHES)


def _describe_settings(settings: RuleSettings | None, rule: type[Rule[Any]]) -> dict[str, Any]:
    if settings is None:
        return {"enabled": False, "severity": OWN, **rule.parameters_model().model_dump(mode="json")}
    severity = OWN if settings.severity is None else settings.severity.value
    return {"enabled": settings.enabled, "severity": severity, **settings.parameters.model_dump(mode="json")}


def _read_settings(table: Any, rule: type[Rule[Any]]) -> RuleSettings:
    parameters = rule.parameters_model.model_validate({name: getattr(table, name) for name in rule.parameters_model.model_fields})
    return RuleSettings(parameters, enabled=table.enabled, severity=None if table.severity == OWN else Severity(table.severity))


def _lay_over(table: Content, over: Any) -> Any:
    """`table` with the values of `over`, tables inside tables too; what is no table replaces one, for the check to refuse."""
    if not isinstance(over, dict):
        return over
    return {**table, **{name: _lay_over(table[name], one) if isinstance(table.get(name), dict) else one for name, one in over.items()}}


def _subtract(table: Content, base: Content) -> dict[str, Any]:
    """The values of `table` that `base` has not, tables inside tables too."""
    rest = {
        name: _subtract(value, base[name]) if isinstance(value, dict) else value for name, value in table.items() if value != base[name]
    }
    return {name: value for name, value in rest.items() if value != {}}


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    *path, key = first["loc"] or ("",)
    place = "".join(f"{part}." for part in path)
    where = f"{place[:-1]}: " if place else ""
    if first["type"] == "missing":
        return f"{where}key {key!r}: {first['msg']}"
    if first["type"] != "extra_forbidden":
        expected = "Input should be a table" if first["type"] == "model_type" else first["msg"].removeprefix("Value error, ")
        return f"{where}key {key!r}: {expected}; got {reprlib.repr(first['input'])}"
    known = list_known_keys(path)
    return f"{where}unknown key {key!r}; {suggest(str(key), known)}known here: {', '.join(known)}"


def list_known_keys(path: Collection[int | str]) -> list[str]:
    """The keys of the table at `path`, sorted."""
    model: Any = make_content_model()
    for part in path:
        model = model.model_fields[part].annotation
    return sorted(model.model_fields)


def suggest(key: str, known: Collection[str]) -> str:
    """`did you mean 'KLA201'? `, where a known key is near, or is the code of the rule of that name; else nothing."""
    names = {rule.name: rule.code for rule in RULES if rule.code in known}
    spelled = {one.lower(): one for one in known} | names
    near = difflib.get_close_matches(key.lower(), spelled, n=1, cutoff=0.7)
    return f"did you mean {spelled[near[0]]!r}? " if near else ""
