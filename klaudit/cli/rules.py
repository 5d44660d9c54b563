"""`klaudit rules`."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from klaudit.audit import RuleDescription, find_rule
from klaudit.audit import list_rules as list_all_rules
from klaudit.audit.page import PARAMETERS
from klaudit.cli.options import JsonOption
from klaudit.cli.output import console, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="The rules of the audit.")


@app.command("list")
def list_rules(as_json: JsonOption = False) -> None:
    """Every rule with its code."""
    rules = list_all_rules()
    if as_json:
        print_json({"rules": [describe_rule(rule) for rule in rules]})
        return
    rows = [(rule.code, rule.name, ", ".join(rule.severities), rule.summary) for rule in rules]
    print_table(("code", "rule", "severities", "what"), rows, empty="no rules")


@app.command("show")
def show_rule(code: Annotated[str, typer.Argument(metavar="CODE", help="Such as KLA101.")], as_json: JsonOption = False) -> None:
    """What a rule checks, its parameters, and what to do when it fires."""
    rule = find_rule(code)
    if as_json:
        print_json({"rule": describe_rule(rule)})
        return
    console.print(f"{rule.code} {rule.name}, version {rule.version}: {rule.summary}", markup=False)
    for title, text in rule.sections.items():
        console.print("", title, *text.splitlines(), sep="\n", markup=False)
        if title == PARAMETERS:
            print_table(("parameter", "default>", "meaning"), [(one.name, str(one.default), one.text) for one in rule.parameters], empty="")


def describe_rule(rule: RuleDescription) -> dict[str, Any]:
    """A rule as JSON."""
    return {**asdict(rule), "rule": rule.name}
