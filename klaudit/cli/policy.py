"""`klaudit policy`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from klaudit.audit import PRESETS, Policy, find_policy, list_rules, read_policy
from klaudit.audit.policy_content import Setting, describe_detection, describe_rules, list_settings, render_schema
from klaudit.cli.options import JsonOption
from klaudit.cli.output import console, print_json, print_table
from klaudit.report.views import format_count

app = typer.Typer(no_args_is_help=True, help="Policies: which rules are on, with which numbers.")


@app.command("list")
def list_policies(as_json: JsonOption = False) -> None:
    """The presets: policies that need no file."""
    if as_json:
        print_json({"policies": [{**one.describe(), "description": one.description} for one in PRESETS.values()]})
        return
    print_table(("policy", "for whom"), [(one.name, one.description) for one in PRESETS.values()], empty="no presets")


@app.command("show")
def show_policy(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="The name of a preset, or a policy file (TOML).")],
    as_json: JsonOption = False,
) -> None:
    """Every setting of a policy; what the preset `default` has otherwise is marked with a star."""
    found = find_policy(policy)
    if as_json:
        print_json({"policy": describe_whole(found)})
        return
    print_identity(found)
    if found.description:
        console.print(found.description, markup=False)
    names = {rule.code: rule.name for rule in list_rules()}
    settings = list(list_settings(found, default=PRESETS["default"]))
    rows = [
        ("" if one.is_default else "*", one.key, show(one.value), show(one.default), names.get(one.key.split(".")[1], ""))
        for one in settings
    ]
    print_table(("", "setting", "value>", "default>", "rule"), rows, empty="no settings")


@app.command("check")
def check_policy(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Policy file (TOML); docs/policies.md says what it may hold.")],
    as_json: JsonOption = False,
) -> None:
    """Read a policy file and say what it changes; exits with 2 when it cannot be read."""
    policy = read_policy(file)
    changes = list_changes(policy)
    off = [rule for rule in list_rules() if not policy.is_on(rule.code)]
    if as_json:
        print_json(
            {"policy": {**policy.describe(), "overrides": [describe_setting(one) for one in changes], "off": [one.code for one in off]}}
        )
        return
    print_identity(policy)
    for one in changes:
        console.print(f"  {one.key} is {show(one.value)}; default {show(one.default)}", markup=False, soft_wrap=True)
    if not changes:
        console.print("  nothing differs from the preset default", markup=False)
    if off:
        names = ", ".join(f"{one.code} {one.name}" for one in off)
        console.print(f"  warning: {format_count(len(off), 'rule')} off: {names}", markup=False, style="yellow", soft_wrap=True)


@app.command("schema")
def print_schema() -> None:
    """The JSON Schema of policy files, for editors that check TOML."""
    sys.stdout.write(render_schema())


def list_changes(policy: Policy) -> list[Setting]:
    """What a policy says otherwise than the preset `default`."""
    return [one for one in list_settings(policy, default=PRESETS["default"]) if not one.is_default]


def describe_whole(policy: Policy) -> dict[str, Any]:
    """A policy with every setting, as JSON."""
    return {
        **policy.describe(),
        "description": policy.description,
        "extends": policy.extends,
        "detection": describe_detection(policy),
        "rules": describe_rules(policy),
        "overrides": [describe_setting(one) for one in list_changes(policy)],
    }


def describe_setting(setting: Setting) -> dict[str, Any]:
    """One setting as JSON."""
    return {"key": setting.key, "value": setting.value, "default": setting.default}


def print_identity(policy: Policy) -> None:
    """Which policy it is."""
    console.print(f"policy {policy.name}, version {policy.version}, {policy.digest}", markup=False, soft_wrap=True)


def show(value: object) -> str:
    """A value as a TOML file has it."""
    return json.dumps(value, ensure_ascii=False)
