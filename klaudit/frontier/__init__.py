"""Reward against d = sqrt(KL per sequence): points, fits, peak, and advice on beta."""

from klaudit.frontier.beta_advice import BetaAdvice, SweptRun, advise_from_run, advise_from_sweep
from klaudit.frontier.fit import FORMS, Fit, Form, NoFit, fit_form, fit_points
from klaudit.frontier.interval import Interval
from klaudit.frontier.moments import Moments
from klaudit.frontier.peak import Peak, find_peak
from klaudit.frontier.point import FrontierPoint, keep_number, read_d, read_points
from klaudit.frontier.study import FrontierStudy, study_frontier

__all__ = [
    "FORMS",
    "BetaAdvice",
    "Fit",
    "Form",
    "FrontierPoint",
    "FrontierStudy",
    "Interval",
    "Moments",
    "NoFit",
    "Peak",
    "SweptRun",
    "advise_from_run",
    "advise_from_sweep",
    "find_peak",
    "fit_form",
    "fit_points",
    "keep_number",
    "read_d",
    "read_points",
    "study_frontier",
]
