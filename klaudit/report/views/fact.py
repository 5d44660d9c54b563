"""What a finding's evidence says besides its series: facts with their units, one a line."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from klaudit.records import Finding
from klaudit.report.views.evidence import NO_UNIT, find_kl_unit, name_kl, name_unit, read_number, read_numbers, tell_number
from klaudit.report.views.figure import format_count, format_interval, format_number

OWN, KL, STEP = "unit of the finding", "unit of the KL", "number of a step"
"""Units that the finding itself says, and numbers that are steps."""

DRAWN = ("window", "blocks", "measurements", "readings", "low")
"""Series: the charts have them."""

TOLD = ("value", "unit", "limits", "is_square_root", "began")
"""What stands elsewhere: the judged value with its unit, the rule's parameters, where it began."""

REPEATS = ("score", "limit", "ratio", "ceiling")
"""Names of what may be the judged value or its threshold."""

WORDS = ("kind", "direction", "outcome", "identity", "form", "check")
"""Names whose value is a word of klaudit's own."""

FACTS: Mapping[str, tuple[str, str]] = {
    "kind": ("kind", ""),
    "direction": ("direction", ""),
    "outcome": ("what became of it", ""),
    "outcome_step": ("settled at", STEP),
    "outcome_kl": ("KL that settled it", KL),
    "kl": ("KL", KL),
    "kl_per_sequence": ("KL per sequence", "nats/sequence"),
    "kl_before": ("KL before", KL),
    "nats_per_token": ("KL per token", "nats/token"),
    "standard_error": ("standard error", KL),
    "lower_bound": ("one-sided 95% lower bound", OWN),
    "n_left_out": ("left out, because they cannot be compared", "readings"),
    "expected": ("expected by then", OWN),
    "sd": ("noise of one reading, standard deviation", KL),
    "score": ("score", OWN),
    "limit": ("alarms above", OWN),
    "sum": ("summed distance", "standard deviations"),
    "z": ("distance from what was expected", "standard deviations"),
    "t": ("slope", "standard errors"),
    "t_score": ("rise of the score", "standard errors"),
    "t_heldout": ("rise of the held-out score", "standard errors"),
    "t_up": ("its rise", "standard errors"),
    "t_down": ("its fall", "standard errors"),
    "up": ("rises", ""),
    "down": ("falls", ""),
    "level": ("level", OWN),
    "before": ("before", OWN),
    "now": ("now", OWN),
    "first": ("first value", OWN),
    "last": ("last value before", OWN),
    "start": ("at the start", OWN),
    "began_with": ("began with", OWN),
    "usual": ("usual in this run", OWN),
    "crest": ("highest usual value", OWN),
    "highest_now": ("highest that it may be now", OWN),
    "d_rise": ("rise of d", "sqrt(nats)"),
    "log_spread": ("spread of the readings", "on the log scale"),
    "distinct_2": ("distinct bigrams", "share of bigrams"),
    "more_cut": ("more texts cut at the length limit than at the start", "share of texts"),
    "correlation": ("correlation of score and length", "(between -1 and 1)"),
    "beta": ("beta", "reward/nat"),
    "first_beta": ("beta at the start of the stretch", "reward/nat"),
    "proposed_beta": ("beta that would give room", "reward/nat"),
    "n_steps_before": ("steps at the value before", "steps"),
    "largest_step_allowed": ("largest change allowed in one step", "of beta"),
    "target": ("set-point of the controller", KL),
    "n_updates": ("updates in a row", "updates"),
    "score_spread": ("spread of the score within a batch", "reward"),
    "is_spread_measured": ("that spread was measured", ""),
    "reachable_kl": ("KL that the best policy would reach", "nats/sequence"),
    "for_kl": ("for a KL of", "nats/sequence"),
    "ceiling": ("ceiling", OWN),
    "n_ties": ("readings exactly at the ceiling", "readings"),
    "clamp": ("the trainer cuts a token off at", "nats"),
    "is_same_weights": ("policy and reference have the same weights", ""),
    "declared": ("declared series", ""),
    "stopped_with_it": ("stopped with it", ""),
    "n_absent": ("steps without a KL", "steps"),
    "n_measured": ("steps with a KL", "steps"),
    "n_steps": ("number of steps", "steps"),
    "widest_spacing": ("widest spacing of readings so far", "steps"),
    "regular_spacing": ("regular spacing of readings", "steps"),
    "window_steps": ("looked for within", "steps"),
    "steps": ("at", STEP),
    "last_broken_step": ("last broken step", STEP),
    "n_missing": ("missing", "steps"),
    "n_lost": ("lost", "steps"),
    "n_gaps": ("gaps", "gaps"),
    "interval": ("logged every", "steps"),
    "first_step": ("lost from", STEP),
    "last_step": ("lost up to", STEP),
    "reason": ("why", ""),
    "metric": ("metric", ""),
    "step": ("at", STEP),
    "grad_norm": ("gradient norm", OWN),
    "frac_reward_zero_std": ("groups with one reward for every text", "share of groups"),
    "identity": ("identity", ""),
    "left": ("left side", "reward"),
    "right": ("right side", "reward"),
    "learned_factor": ("factor that the run has kept to", "ratio"),
    "tolerance": ("tolerance", "share"),
    "last_step_kept": ("last kept at", STEP),
    "form": ("fitted form", ""),
    "offset": ("fitted offset", "reward"),
    "alpha": ("fitted alpha", "reward/sqrt(nat)"),
    "n_points": ("fitted to", "points"),
    "residual_sd": ("scatter around the fit, standard deviation", "reward"),
    "memory": ("correlation of neighbouring points", "(between -1 and 1)"),
    "best_step": ("best held-out score up to", STEP),
    "name": ("setting", ""),
    "number": ("judged number", "as configured"),
    "also": ("out of its band too", ""),
    "framework": ("framework", ""),
    "why": ("why", ""),
    "trainer": ("trainer", ""),
    "source": ("read in", ""),
    "told": ("what is known", ""),
    "configured": ("configured", ""),
    "changed_at": ("changed at", ""),
    "by": ("by", ""),
    "what": ("changed", ""),
    "estimators": ("estimators", ""),
    "check": ("check", ""),
    "checkpoint": ("checkpoint", ""),
    "slice": ("slice of the prompts", ""),
    "p_value_holm": ("p value, corrected for the number of slices", "(between 0 and 1)"),
    "n_prompts": ("prompts of the slice", "prompts"),
    "text": ("text", ""),
    "text_digest": ("digest of the text", ""),
    "policy_nats_per_token": ("negative log-likelihood of the checkpoint", "nats/token"),
    "reference_nats_per_token": ("negative log-likelihood of the reference", "nats/token"),
    "n_tokens": ("tokens of the text", "tokens"),
    "n_passages": ("passages of the text", "passages"),
}
"""Label and unit of every number and word that a rule keeps."""

UNLIKE: Mapping[tuple[str, str], str] = {
    ("KLA401", "score"): "standard deviations",
    ("KLA206", "limit"): "standard deviations",
}
"""Units of the few names that mean something else under one code."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the evidence."""

    label: str
    text: str
    """With its unit."""


def list_facts(finding: Finding) -> tuple[Fact, ...]:
    """Everything in the evidence that is no series, in the order in which the rule kept it."""
    facts: list[Fact] = []
    for name, value in finding.evidence.items():
        if not is_told(finding, name, value):
            facts.extend(tell(finding, name, value))
    return tuple(facts)


def is_told(finding: Finding, name: str, value: Any) -> bool:
    """Whether a chart, or the judged value and its threshold, already say it; or whether there is nothing to say."""
    if name in DRAWN or name in TOLD or value is None or (name == "n_left_out" and not value):
        return True
    if name == "before" and isinstance(value, Sequence) and not isinstance(value, str):
        return True
    if name == "kl_per_sequence" and value == finding.evidence.get("kl"):
        return True
    return name in REPEATS and value in (finding.value, finding.threshold) and find_unit(finding, name, OWN) == name_unit(finding.unit)


def tell(finding: Finding, name: str, value: Any) -> Iterator[Fact]:
    """One entry of the evidence."""
    label, unit = FACTS.get(name, (name.replace("_", " "), ""))
    label = f"{label[:1].upper()}{label[1:]}"
    if name in TELLERS:
        yield from TELLERS[name](finding, value)
    elif isinstance(value, Mapping):
        yield from (
            Fact(f"{label}, {part}", tell_value(one, find_unit(finding, name, unit))) for part, one in value.items() if one is not None
        )
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield Fact(label, tell_list(value, is_step=unit == STEP))
    else:
        told = tell_value(value, find_unit(finding, name, unit))
        yield Fact(label, told.replace("_", " ") if name in WORDS else told)


def find_unit(finding: Finding, name: str, unit: str) -> str:
    """The unit of a number under its name."""
    unit = UNLIKE.get((finding.code, name), unit)
    if unit == KL or (name == "expected" and "series" in finding.evidence):
        return find_kl_unit(finding)
    return name_unit(finding.unit) if unit == OWN else unit


def tell_value(value: Any, unit: str) -> str:
    """A number with its unit, a word as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    number = read_number(value)
    if number is None:
        return str(value)
    return f"step {format_number(number)}" if unit == STEP else tell_number(number, unit)


def tell_list(values: Sequence[Any], *, is_step: bool) -> str:
    """Words or steps, parted by commas."""
    if not values:
        return "none"
    words = ", ".join(one if isinstance(one, str) else str(one) for one in values)
    return f"step {words}" if is_step and len(values) == 1 else f"steps {words}" if is_step else words


def tell_series(finding: Finding, value: Any) -> Iterator[Fact]:
    """Which series was judged."""
    key = value.get("key") if isinstance(value, Mapping) else None
    name = f"{name_kl(finding)}, {find_kl_unit(finding)}"
    yield Fact("Series", f"{name}, logged as {key}" if key else name)


def tell_budget(label: str) -> Callable[[Finding, Any], Iterator[Fact]]:
    """A teller of one budget; of anything else under that name, a number or a digest."""

    def tell_one(finding: Finding, value: Any) -> Iterator[Fact]:
        if not isinstance(value, Mapping):
            yield Fact(label, tell_value(value, name_unit(finding.unit)))
            return
        scope = str(value.get("scope", "")).replace("_", " ")
        window = f" over {value['window_steps']} steps" if value.get("window_steps") else ""
        action = f", on breach {str(value.get('action', 'alert')).replace('_', ' ')}"
        yield Fact(label, f"{tell_value(value.get('limit'), name_unit(value.get('unit')))}, {scope}{window}{action}")
        for name in ("owner", "reason"):
            if value.get(name):
                yield Fact(f"{label}, {name}", str(value[name]))

    return tell_one


def tell_lower_bound(finding: Finding, value: Any) -> Iterator[Fact]:
    """The bound of what was compared with a budget: of a checkpoint it is the end of an interval."""
    budget = finding.evidence.get("budget")
    is_measured = isinstance(budget, Mapping) and budget.get("scope") == "checkpoint"
    label, unit = FACTS["lower_bound"]
    label = "lower end of the 95% interval over prompts" if is_measured else label
    yield Fact(f"{label[:1].upper()}{label[1:]}", tell_value(value, find_unit(finding, "lower_bound", unit)))


def tell_reading(label: str) -> Callable[[Finding, Any], Iterator[Fact]]:
    """A teller of one reading that was compared with a budget."""

    def tell_one(finding: Finding, value: Any) -> Iterator[Fact]:
        if not isinstance(value, Mapping):
            yield Fact(label, str(value))
            return
        unit = find_kl_unit(finding)
        bound = value.get("lower_bound")
        lower = "" if bound is None else f", one-sided 95% lower bound {tell_value(bound, unit)}"
        yield Fact(label, f"{tell_value(value.get('value'), unit)} at step {value.get('step')}{lower}")

    return tell_one


def tell_names(_: Finding, value: Any) -> Iterator[Fact]:
    """Which numbers were not finite."""
    if isinstance(value, Mapping):
        yield from (Fact(str(name), f"is {kind}, no finite number") for name, kind in value.items())


def tell_gap(_: Finding, value: Any) -> Iterator[Fact]:
    """The last stretch of missing steps."""
    ends = read_numbers(value)
    if len(ends) == 2 and all(one is not None and math.isfinite(one) for one in ends):
        yield Fact("Last gap", f"between step {format_number(ends[0] or 0)} and step {format_number(ends[1] or 0)}")


def tell_peak(_: Finding, value: Any) -> Iterator[Fact]:
    """Where the fit has its peak."""
    ends = read_numbers(value)
    if len(ends) == 3 and all(one is not None for one in ends):
        low, peak, high = (one or 0.0 for one in ends)
        yield Fact("Peak of the held-out score, d*", f"{format_interval(peak, low, high)} sqrt(nats)")


def tell_estimate(label: str, unit: str) -> Callable[[Finding, Any], Iterator[Fact]]:
    """A teller of a value with its 95% interval; of a value alone where no interval is kept."""

    def tell_one(finding: Finding, value: Any) -> Iterator[Fact]:
        told = name_unit(finding.unit) if unit == OWN else unit
        ends = read_numbers(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
        if len(ends) == 3 and all(one is not None for one in ends):
            middle, low, high = (one or 0.0 for one in ends)
            yield Fact(label, f"{format_interval(middle, low, high)} {told}")
        else:
            yield Fact(label, tell_value(value, told))

    return tell_one


def tell_bend(finding: Finding, value: Any) -> Iterator[Fact]:
    """The coefficient that bends the fit down; its unit is that of the form (Gao et al. 2022, arXiv:2210.10760)."""
    yield Fact("Fitted bend", tell_value(value, "reward/nat" if finding.evidence.get("form") == "best_of_n" else "reward/sqrt(nat)"))


def tell_settings(_: Finding, value: Any) -> Iterator[Fact]:
    """What cuts the vocabulary while sampling."""
    units = {"top_k": "tokens", "top_p": "of the probability", "min_p": "of the likeliest token's probability"}
    if isinstance(value, Mapping):
        yield from (Fact(str(name), tell_value(one, units.get(name, NO_UNIT))) for name, one in value.items())


def tell_score(finding: Finding, value: Any) -> Iterator[Fact]:
    """A detector's score, or the line through the scores of a run that stands still."""
    if not isinstance(value, Mapping):
        yield Fact("Score of the detector", tell_value(value, find_unit(finding, "score", OWN)))
        return
    yield Fact("Mean score", tell_value(value.get("mean"), "reward"))
    slope, error = (tell_value(value.get(name), "reward/step") for name in ("slope", "standard_error"))
    yield Fact("Slope of the score", f"{slope}, standard error {error}, over {format_count(int(read_number(value.get('n')) or 0), 'step')}")


TELLERS: Mapping[str, Callable[[Finding, Any], Iterator[Fact]]] = {
    "series": tell_series,
    "budget": tell_budget("Budget"),
    "before": tell_budget("Before"),
    "after": tell_budget("After"),
    "lower_bound": tell_lower_bound,
    "breach": tell_reading("Over the limit"),
    "last_before_change": tell_reading("Last reading before the change"),
    "names": tell_names,
    "last_gap": tell_gap,
    "peak_d": tell_peak,
    "bend": tell_bend,
    "settings": tell_settings,
    "ratio": tell_estimate("Ratio", OWN),
    "slice_nats_per_token": tell_estimate("KL of the slice", "nats/token"),
    "rest_nats_per_token": tell_estimate("KL of all other prompts", "nats/token"),
    "rise_nats_per_token": tell_estimate("Rise of the negative log-likelihood", "nats/token"),
    "score": tell_score,
}
"""What is more than a number, a word or a list."""
