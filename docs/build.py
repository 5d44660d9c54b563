"""What the documentation takes from the code: `python docs/build.py` writes it, `--check` names what is stale or leads nowhere.

Generated are the files of `FILES`, what `BLOCKS` puts between `<!-- generated: NAME -->` and `<!-- end -->`, and the curves of the sample runs.
"""

import ast
import inspect
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

from klaudit import config, errors
from klaudit.audit import PRESETS, Audit, audit_run
from klaudit.audit.backtest import WITHIN_STEPS, Backtest, backtest_run
from klaudit.audit.detection import DetectionParameters
from klaudit.audit.page import render_page
from klaudit.audit.policy_content import list_settings
from klaudit.audit.policy_content import render_schema as render_policy_schema
from klaudit.cli.backtest import show_total, tabulate_runs
from klaudit.cli.main import app
from klaudit.exchange.frameworks import CHECKED_LABELS, Framework
from klaudit.exchange.metric_map import FRAMEWORKS, declare_series
from klaudit.exchange.readers import READERS
from klaudit.exchange.recorded_run import RecordedRun, read_recorded_run
from klaudit.frontier import read_points, study_frontier
from klaudit.ppo.config import PPOConfig
from klaudit.records import PRIMARY, KLBudget, KLSeries, Severity
from klaudit.records.series import KIND_LABELS, UNIT_LABELS
from klaudit.report.svg import Chart, draw_chart
from klaudit.report.views import METRICS, format_number, view_run
from klaudit.report.views.frontier import view_frontier
from klaudit.store.schema import render_schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/*.md", "docs/trainers/*.md", "sample_runs/*.md")
SAMPLE_RUNS = ROOT / "sample_runs"
BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
FENCE = re.compile(r"^(```+)[^\n]*\n.*?^\1$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)|\b(?:src|href)=\"([^\"]+)\"")
KL_HEAD = ("its key", "klaudit's key", "kind", "estimator", "unit", "aggregation", "direction")
N_AVERAGED = 8
"""Steps that a figure of a sample run is the mean of."""

EXIT_CODES: Mapping[int, str] = {
    0: "clean",
    1: "`audit` has a finding at or above `--fail-on` (default `critical`)",
    2: "usage: wrong arguments, an unknown run, a bad policy or input file",
    3: "the tool could not do its work: store unreachable, another schema, a full disk; `db check` of a store that is not current or not sound",
    4: "integrity broken: `ledger verify` found a store that is not as its ledger says",
    130: "interrupted with Ctrl-C",
    141: "who read standard output has gone, as `head` does",
}

CLI_HEAD = """# Command line

Written from the code by `python docs/build.py`; do not edit by hand.

RUN is a run's id or its unique name. What is printed for people may change; the exit codes and the JSON are a promise.

## Exit codes

{exit_codes}

## JSON

`--json` prints one JSON object on standard output; messages go to standard error. The object holds `schema_version`.
Numbers that are not finite are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`.

## Settings

{settings}

The environment wins over the file, an option wins over both. The file is read from the working directory.
`KLAUDIT_CACHE` names the directory for the converted model of the demo; the default is `$XDG_CACHE_HOME/klaudit`, else `~/.cache/klaudit`."""


def tabulate(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def take_tables(docstring: str | None) -> list[str]:
    """The tables of a docstring."""
    return [paragraph for paragraph in inspect.cleandoc(docstring or "").split("\n\n") if paragraph.startswith("|")]


def read_field_docstrings(record: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    (definition,) = ast.parse(inspect.getsource(record)).body
    assert isinstance(definition, ast.ClassDef)
    documented = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            documented[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value))
    return documented


def describe_fields(record: type, *, without: Iterable[str] = (), refused: Iterable[str] = ()) -> str:
    """The fields of a dataclass with type, default and docstring; not the choices that it refuses."""
    hints, documented = get_type_hints(record), read_field_docstrings(record)
    rows = [
        (
            f"`{one.name}`",
            name_type(hints[one.name], refused=refused),
            name_default(one.default, required=MISSING),
            documented.get(one.name, ""),
        )
        for one in fields(record)
        if one.name not in without
    ]
    return tabulate(("field", "type", "default", "meaning"), rows)


def name_type(hint: Any, *, refused: Iterable[str] = ()) -> str:
    """A type for people; whether it may be left out is for the default to say."""
    members = [member for member in get_args(hint) if member is not type(None)]
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in members if choice not in refused)
    if isinstance(hint, UnionType):
        return " or ".join(name_type(member) for member in members)
    if get_origin(hint) is tuple:
        return f"list of [{', '.join(name_type(member) for member in get_args(members[0]))}]"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(f"`{choice.value}`" for choice in hint)
    return {int: "integer", float: "number", str: "text", bool: "true or false"}.get(hint) or str(getattr(hint, "__name__", hint))


def name_default(default: object, *, required: object) -> str:
    """A default as TOML and the command line write it."""
    if default is required:
        return "required"
    if default is None:
        return "none"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def describe_kl_keys() -> str:
    """What each framework's KL keys are."""
    return tabulate(("trainer", *KL_HEAD), [(one.title, *row) for one in FRAMEWORKS for row in list_kl_keys(one)])


def list_kl_keys(framework: Framework) -> Iterator[tuple[str, ...]]:
    """One row a KL key of a framework, in the order of `KL_HEAD`."""
    for key, one in declare_series(framework).items():
        if one.source_key is not None:
            estimator = name_estimator(framework, one)
            # Of those that some settings leave out, the one that is logged is the run's own KL.
            name = PRIMARY if one.kind == "reference" and one.direction == "reverse" and one.source_key in framework.optional else key
            yield f"`{one.source_key}`", f"`{name}`", one.kind, estimator, UNIT_LABELS[one.unit], one.aggregation, one.direction


def name_estimator(framework: Framework, series: KLSeries) -> str:
    """The estimator of a series by the framework's defaults."""
    is_set = series.source_key in framework.estimator_arguments and series.estimator != "unknown"
    return series.estimator + ", or what its arguments say" * is_set


def describe_page_keys(page: str) -> str:
    """Of the trainers of one page: how they were checked, where they were read, their KL keys, and the other keys that have a name."""
    return "\n\n".join(describe_framework(one) for one in FRAMEWORKS if one.page == page)


def describe_framework(framework: Framework) -> str:
    """One trainer's facts and keys."""
    facts = [f"**{framework.title}** (`{framework.label}`): {CHECKED_LABELS[framework.checked]}. Source: {framework.source}."]
    facts += [f"- {capitalise(note)}." for note in framework.notes]
    facts += [
        f"- Each token's part of `{key}` is cut off at {limit:g} nats{name_clamped(framework)}." for key, limit in framework.clamps.items()
    ]
    renamed = [(key, "score") for key in framework.score] + [(key, "beta") for key in framework.beta] + list(framework.metrics.items())
    rows = [(f"`{key}`", f"`{name}`" + ", sign turned" * (key in framework.negated)) for key, name in renamed if key != name]
    tables = [tabulate(KL_HEAD, rows_of_kl)] if (rows_of_kl := list(list_kl_keys(framework))) else []
    tables += [tabulate(("its key", "klaudit's name"), rows)] if rows else []
    return "\n\n".join(["\n".join(facts[:1]), *(["\n".join(facts[1:])] if facts[1:] else []), *tables])


def name_meaning(framework: Framework, series: KLSeries) -> str:
    """Kind, estimator and unit of a series in one cell."""
    if series.kind == "unknown":
        return "no KL: shown, and compared with no budget"
    return f"{KIND_LABELS[series.kind]}: {name_estimator(framework, series)}, {UNIT_LABELS[series.unit]}"


def capitalise(sentence: str) -> str:
    """A sentence with a capital; one that begins with a key keeps it."""
    first = sentence.partition(" ")[0]
    return sentence[0].upper() + sentence[1:] if first.isalpha() and first != PRIMARY else sentence


def name_clamped(framework: Framework) -> str:
    """Which estimators a clamp holds for, where not for all."""
    estimators = sorted(framework.clamped_estimators)
    return "" if len(estimators) == 3 else f" where it is {', '.join(estimators)}"


def describe_trainers() -> str:
    """Every trainer in one line, with its page."""
    head = ("trainer", "how it was checked", "its KL", "what that is", "page")
    rows = []
    for framework in FRAMEWORKS:
        own = [one for one in declare_series(framework).values() if one.source_key is not None and one.kind not in ("update", "mismatch")]
        shown = own or [one for one in declare_series(framework).values() if one.source_key is not None]
        keys = ", ".join(f"`{one.source_key}`" for one in shown) or "none"
        what = dict.fromkeys(name_meaning(framework, one) for one in shown)
        page = f"[{framework.page}](trainers/{framework.page}.md)"
        rows.append((framework.title, CHECKED_LABELS[framework.checked], keys, "; ".join(what) or "a live probe or the checkpoints", page))
    return tabulate(head, rows)


def describe_driven_trainers() -> str:
    """The trainers that klaudit's tests drive, for a page that is read in one go."""
    rows = []
    for framework in FRAMEWORKS:
        if framework.checked == "read":
            continue
        series = [one for one in declare_series(framework).values() if one.source_key is not None and one.kind != "update"]
        keys = [f"`{one.source_key}`: {name_meaning(framework, one)}" for one in series]
        driven = "a training" if framework.checked == "run" else "its logger"
        rows.append(
            (f"[{framework.title}](docs/trainers/{framework.page}.md)", "<br>".join(keys) or "none; a live probe measures it", driven)
        )
    return tabulate(("trainer", "what it logs as KL", "in klaudit's tests"), rows)


def describe_import_formats() -> str:
    """Every format that `klaudit import` reads."""
    return tabulate(("`--format`", "what it is"), [(f"`{reader.name}`", reader.describes) for reader in READERS])


def describe_metrics() -> str:
    """The metric names that have a meaning."""
    return tabulate(("name", "what it is", "unit"), [(f"`{name}`", label, unit) for name, (label, unit) in METRICS.items()])


def describe_trl_differences() -> str:
    """What the embedded trainer does otherwise than TRL 1.12.0, on purpose; read without importing torch."""
    modules = [ast.parse((ROOT / "klaudit" / "ppo" / name).read_text(encoding="utf-8")) for name in ("objective.py", "trainer.py")]
    return "\n\n".join(table for module in modules for table in take_tables(ast.get_docstring(module)))


def describe_exit_codes() -> str:
    """Every exit code, and the errors that end with it."""
    known = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.KlauditError)]
    rows = [
        (str(code), text, ", ".join(f"`{one.__name__}`" for one in known if one.exit_code == code)) for code, text in EXIT_CODES.items()
    ]
    return tabulate(("code", "meaning", "errors"), rows)


def list_commands(group: typer.Typer = app, path: str = "klaudit") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every command with its path, in the order of `klaudit --help`."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path} {command.name}", command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from list_commands(inner.typer_instance, f"{path} {inner.name}")


def describe_command(path: str, function: Callable[..., Any]) -> str:
    """One command: help, arguments, options."""
    parameters = [(one, *get_args(one.annotation)) for one in inspect.signature(function, eval_str=True).parameters.values()]
    arguments = [one for one in parameters if isinstance(one[2], typer.models.ArgumentInfo)]
    options = [one for one in parameters if isinstance(one[2], typer.models.OptionInfo)]
    usage = " ".join([path, *(str(info.metavar) for _, _, info in arguments), *["[OPTIONS]"] * bool(options)])
    rows = [describe_parameter(*one) for one in (*arguments, *options)]
    table = tabulate(("", "value", "default", "meaning"), rows)
    return f"## {path}\n\n{inspect.getdoc(function)}\n\n```text\n{usage}\n```\n\n{table}"


def describe_parameter(parameter: inspect.Parameter, kind: Any, info: Any) -> tuple[str, str, str, str]:
    """Flag, value, default and meaning of one argument or option."""
    text, _, stated = (info.help or "").partition(" [default: ")
    default = stated.removesuffix("]") or name_default(parameter.default, required=inspect.Parameter.empty)
    if isinstance(info, typer.models.ArgumentInfo):
        return f"`{info.metavar}`", "", default, text
    # In an Annotated the flag stands where Option takes its default.
    flag = next(one for one in (info.default, *info.param_decls) if isinstance(one, str))
    if kind is bool:
        return f"`{flag}`", "", "", text
    least = "" if info.min is None else f", {info.min:g} or more"
    return f"`{flag}`", f"{info.metavar or name_type(kind)}{least}", default, text


def render_cli() -> str:
    """`docs/cli.md`."""
    head = CLI_HEAD.format(exit_codes=describe_exit_codes(), settings=take_tables(config.__doc__)[0])
    return "\n\n".join([head, *(describe_command(path, function) for path, function in list_commands())]) + "\n"


def read_sample_runs() -> dict[Path, RecordedRun]:
    """The sample runs that were recorded, by directory."""
    return {path.parent: read_recorded_run(path.parent) for path in sorted(SAMPLE_RUNS.glob("*/steps.jsonl"))}


def audit_recorded(recorded: RecordedRun) -> Audit:
    """The audit that `klaudit demo --replay` makes."""
    return audit_run(recorded.run, recorded.steps, budgets=recorded.budgets, drift_measurements=recorded.drift)


def draw_recorded(recorded: RecordedRun) -> str:
    """The governing KL with its band, budgets and findings, as a picture that stands alone."""
    findings = audit_recorded(recorded).findings
    view = view_run(recorded.run, steps=recorded.steps, findings=findings, budgets=recorded.budgets, checkpoints=())
    assert view.governing is not None
    levels = tuple((f"budget {one.label}", one.limit) for one in view.budgets if one.is_line)
    markers = tuple(enumerate(view.markers, start=1))
    chart = Chart(view.governing.label, view.governing.unit, (view.governing,), levels, markers)
    style = files("klaudit.report").joinpath("templates", "report.css").read_text(encoding="utf-8")
    opening, _, rest = draw_chart(chart).partition(">")
    size = f'<svg xmlns="http://www.w3.org/2000/svg" width="{chart.width}" height="{chart.height}"'
    return f"{opening.replace('<svg', size)}><style>{style}svg {{ background: var(--card); }}</style>{rest}\n"


def describe_recorded(directory: Path, recorded: RecordedRun) -> tuple[str, ...]:
    """Figures of one sample run."""
    steps, audit = recorded.steps, audit_recorded(recorded)
    kl = [
        (reading.value, one.step)
        for one in steps
        if (reading := one.reading(audit.governing_key or "")) and reading.is_finite and reading.value is not None
    ]
    heldout = [one.metrics["heldout_score"] for one in steps if "heldout_score" in one.metrics]
    found = Counter(f"{one.severity} {one.code}" for one in audit.findings)
    return (
        f"`{directory.name}`",
        str(len(steps)),
        f"{steps[0].beta:.3g} to {steps[-1].beta:.3g}",
        f"{average([value for value, _ in kl[-N_AVERAGED:]]):.3g}",
        "{:.3g} at step {}".format(*max(kl)),
        compare_ends([one.score for one in steps if one.score is not None]),
        compare_ends(heldout),
        f"{audit.verdict}: {', '.join(f'{count} {name}' for name, count in sorted(found.items())) or 'no findings'}",
    )


def compare_ends(values: Sequence[float]) -> str:
    """Means over the first and the last steps."""
    return f"{average(values[:N_AVERAGED]):+.2f} to {average(values[-N_AVERAGED:]):+.2f}"


def average(values: Sequence[float]) -> float:
    """Mean; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def describe_sample_runs() -> str:
    """Figures and curves of the sample runs."""
    recorded = read_sample_runs()
    if not recorded:
        return "Not recorded yet."
    head = ("run", "steps", "beta, first to last", "KL, last steps", "KL, highest", "score", "held-out score", "audit")
    note = f"KL in nats/sequence by the `full` estimator, at the end as a mean over {N_AVERAGED} steps; scores as means over the first and the last {N_AVERAGED}."
    curves = [f"`{one.name}`, KL in nats/sequence over steps:\n\n![KL of the run {one.name}]({one.name}/kl.svg)" for one in recorded]
    return "\n\n".join([tabulate(head, [describe_recorded(*one) for one in recorded.items()]), note, *curves])


def describe_truths() -> str:
    """What each sample run is, and what was planted in it."""
    rows = []
    for path in sorted(SAMPLE_RUNS.glob("*/config.toml")):
        truth = json.loads((path.parent / "truth.json").read_text(encoding="utf-8"))
        planted = [f"{one['code']} for {one['cause']}, {describe_onset(one)}" for one in truth["planted"]]
        rows.append((f"`{path.parent.name}`", config.read_toml(path)["description"], "; ".join(planted) or "nothing critical"))
    return tabulate(("run", "what it is", "what an audit must find"), rows)


def describe_onset(planted: Mapping[str, Any]) -> str:
    """`within 3 steps of step 36`."""
    onset = planted["onset"]
    step = f"step {onset['step']}" if "step" in onset else f"the first KL over {onset['first_kl_over']:g} {UNIT_LABELS[onset['unit']]}"
    return f"within {planted['within_steps']} steps of {step}"


def describe_presets() -> str:
    """The policies that need no file, and how many settings they change."""
    default = PRESETS["default"]
    rows = [
        (f"`{one.name}`", one.description, str(sum(not setting.is_default for setting in list_settings(one, default=default))))
        for one in PRESETS.values()
    ]
    return tabulate(("preset", "for whom", "settings changed"), rows)


def describe_detection() -> str:
    """The table `[detection]` of a policy."""
    rows = [(f"`{name}`", f"`{json.dumps(one.default)}`", one.description or "") for name, one in DetectionParameters.model_fields.items()]
    return tabulate(("setting", "default", "meaning"), rows)


def describe_backtest() -> str:
    """The back-test of klaudit's policy against one of W&B's, over the sample runs."""
    policy, against = PRESETS["default"], PRESETS["wandb-z-score"]
    recorded = {path.parent: read_recorded_run(path.parent) for path in sorted(SAMPLE_RUNS.glob("**/steps.jsonl"))}
    runs = [
        backtest_run(one.run, one.steps, policy=policy, against=against, budgets=one.budgets, drift_measurements=one.drift)
        for one in recorded.values()
    ]
    found = Backtest(policy, against, tuple(runs), at_least=Severity.WARNING, within_steps=WITHIN_STEPS)
    columns, rows = tabulate_runs(found)
    totals = [f"- `{one.policy.name}`: {show_total(one)}." for one in (found.total("policy"), found.total("against"))]
    return "\n\n".join([tabulate([column.removesuffix(">") for column in columns], rows), "\n".join(totals)])


def describe_estimator_study() -> str:
    """What tests/bench/estimator_study.py found, as it left it in docs/estimators.json."""
    result = ROOT / "docs" / "estimators.json"
    if not result.is_file():
        return "Not measured yet."
    study = json.loads(result.read_text(encoding="utf-8"))
    head = (
        "estimator",
        "mean, nats/sequence",
        "variance",
        "x of `full`",
        "negative sequences",
        "negative means of {batch}",
        "sequences for 10%",
    )
    told = [
        "{model}, {n_samples} completions of {n_tokens} tokens by each policy at temperature 1, seed {seed}; means with 95% intervals.".format(
            **study, n_samples=study["policies"][0]["n_samples"]
        )
    ]
    for one in study["policies"]:
        rows = [
            (
                f"`{name}`",
                f"{found['mean']:.3g} ± {found['half_width']:.2g}",
                f"{found['variance']:.3g}",
                f"{found['variance_ratio']:.3g}",
                f"{found['negative_sequences']:.0%}",
                f"{found['negative_batches']:.1%}",
                f"{found['sequences_needed']:,}",
            )
            for name, found in one["estimators"].items()
        ]
        biases = one["bias_of_stored_reference"]
        told.append(f"**{one['policy'][0].upper()}{one['policy'][1:]}**")
        told.append(tabulate([column.format(**study) for column in head], rows))
        told.append(
            f"Of the reference only its {study['n_kept']} likeliest tokens kept: {biases['kept']:+.0%} of `full` with both renormalised, "
            f"{biases['bucketed']:+.0%} with one bucket for the rest."
        )
    return "\n\n".join(told)


def describe_frontier(runs: str) -> str:
    """What `klaudit frontier` says of the sample runs whose directories match a pattern; several are a sweep."""
    recorded = [read_recorded_run(path.parent) for path in sorted(SAMPLE_RUNS.glob(f"{runs}/steps.jsonl"))]
    if not recorded:
        return "Not recorded yet."
    view = view_frontier(study_frontier([point for one in recorded for point in read_points(one.run, one.steps)]))
    told = [f"- {escape(sentence)}" for sentence in (*view.sentences, *view.advice)]
    fits = tabulate(("curve", "fit"), [(escape(one.label), escape(one.formula)) for one in view.curves if one.is_better])
    rows = [(f"`{one.run}`", format_number(one.beta), format_number(one.final_d), format_number(one.final_d**2)) for one in view.swept]
    swept = [tabulate(("run", "beta, reward/nat", "final d, sqrt(nats)", "final KL, nats/sequence"), rows)] if rows else []
    head = "Of " + ", ".join(f"`{name}`" for name in view.names) + ":"
    return "\n\n".join([head, *swept, "\n".join(told), fits])


def escape(text: str) -> str:
    """Text in which Markdown finds no emphasis."""
    return text.replace("*", "\\*")


FILES: Mapping[str, Callable[[], str]] = {
    "docs/cli.md": render_cli,
    "docs/rules.md": render_page,
    "docs/policy.schema.json": render_policy_schema,
    "db/schema.sql": render_schema,
}
BLOCKS: Mapping[str, Callable[[], str]] = {
    "kl-keys": describe_kl_keys,
    "trainers": describe_driven_trainers,
    "trainer-pages": describe_trainers,
    **{f"keys-of-{page}": partial(describe_page_keys, page) for page in dict.fromkeys(one.page for one in FRAMEWORKS)},
    "import-formats": describe_import_formats,
    "metrics": describe_metrics,
    "series-fields": lambda: describe_fields(KLSeries),
    "budget-fields": lambda: describe_fields(KLBudget, without=("id", "run_id", "created_at"), refused=("unknown", "raise_beta")),
    "ppo-config": lambda: describe_fields(PPOConfig),
    "trl-differences": describe_trl_differences,
    "presets": describe_presets,
    "detection": describe_detection,
    "backtest": describe_backtest,
    "sample-runs": describe_sample_runs,
    "sample-truths": describe_truths,
    "estimator-study": describe_estimator_study,
    "frontier-run": partial(describe_frontier, "beta-near-zero"),
    "frontier-sweep": partial(describe_frontier, "sweep/*"),
}


def list_pages() -> list[Path]:
    """Every Markdown file of the project."""
    return sorted(page for pattern in PAGES for page in ROOT.glob(pattern))


def fill_blocks(text: str) -> str:
    """A page with its generated blocks as the code has them now."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{BLOCKS[block[2]]()}\n\n{block[3]}", text)


def render_all() -> dict[Path, str]:
    """What every file with something generated in it should hold."""
    rendered = {ROOT / name: render() for name, render in FILES.items()}
    rendered |= {directory / "kl.svg": draw_recorded(recorded) for directory, recorded in read_sample_runs().items()}
    return rendered | {page: fill_blocks(page.read_text(encoding="utf-8")) for page in list_pages() if page not in rendered}


def find_stale(rendered: Mapping[Path, str]) -> Iterator[str]:
    """The files that are not what the code says."""
    for path, text in rendered.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield f"{name_file(path)} is not what the code says; run: python docs/build.py"


def name_file(path: Path) -> str:
    """A file of the project by its path in it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def list_anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find_broken_links(pages: Iterable[Path]) -> Iterator[str]:
    """Relative links and pictures that lead nowhere."""
    for page in pages:
        for match in LINK.finditer(FENCE.sub("", page.read_text(encoding="utf-8"))):
            link = match[1] or match[2]
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if link.startswith(("https://", "http://", "mailto:")):
                continue
            if not target.exists() or (anchor and anchor not in list_anchors(target)):
                yield f"{name_file(page)}: {link} leads nowhere"


def main(arguments: Sequence[str]) -> int:
    """Write, or with `--check` only compare; gives the exit code."""
    rendered = render_all()
    if "--check" in arguments:
        problems = [*find_stale(rendered), *find_broken_links(list_pages())]
        sys.stderr.write("".join(f"{one}\n" for one in problems))
        return 1 if problems else 0
    for path, text in rendered.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
