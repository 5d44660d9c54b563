"""The rules, one per file, and the table they are registered in."""

from typing import Any

from klaudit.audit.rule import Rule
from klaudit.audit.rules.beta_changed import BetaChanged
from klaudit.audit.rules.beta_controller import BetaController
from klaudit.audit.rules.budget_exceeded import BudgetExceeded
from klaudit.audit.rules.clamp_saturation import ClampSaturation
from klaudit.audit.rules.clip_fraction_high import ClipFractionHigh
from klaudit.audit.rules.entropy_collapse import EntropyCollapse
from klaudit.audit.rules.entropy_explosion import EntropyExplosion
from klaudit.audit.rules.eos_missing import EosMissing
from klaudit.audit.rules.estimator_config import EstimatorConfig
from klaudit.audit.rules.first_step_kl import FirstStepKL
from klaudit.audit.rules.gradient_anomaly import GradientAnomaly
from klaudit.audit.rules.kl_flat import KLFlat
from klaudit.audit.rules.kl_jump import KLJump
from klaudit.audit.rules.kl_level_shift import KLLevelShift
from klaudit.audit.rules.kl_negative import KLNegative
from klaudit.audit.rules.kl_not_observable import KLNotObservable
from klaudit.audit.rules.kl_spike import KLSpike
from klaudit.audit.rules.kl_trend_change import KLTrendChange
from klaudit.audit.rules.kl_volatility import KLVolatility
from klaudit.audit.rules.length_drift import LengthDrift
from klaudit.audit.rules.limit_loosened import LimitLoosened
from klaudit.audit.rules.low_coverage import LowCoverage
from klaudit.audit.rules.mismatch_trend import MismatchTrend
from klaudit.audit.rules.non_finite import NonFinite
from klaudit.audit.rules.off_policy_scoring import OffPolicyScoring
from klaudit.audit.rules.over_constrained import OverConstrained
from klaudit.audit.rules.overoptimization import Overoptimization
from klaudit.audit.rules.ratio_out_of_band import RatioOutOfBand
from klaudit.audit.rules.reference_changed import ReferenceChanged
from klaudit.audit.rules.retention_loss import RetentionLoss
from klaudit.audit.rules.reward_hacking import RewardHacking
from klaudit.audit.rules.reward_identity import RewardIdentity
from klaudit.audit.rules.rollout_mismatch import RolloutMismatch
from klaudit.audit.rules.slice_divergence import SliceDivergence
from klaudit.audit.rules.stalled import Stalled
from klaudit.audit.rules.step_gap import StepGap
from klaudit.audit.rules.truncated_sampling import TruncatedSampling
from klaudit.audit.rules.update_kl_high import UpdateKLHigh

RULES: tuple[type[Rule[Any]], ...] = (
    BudgetExceeded,
    KLJump,
    KLSpike,
    KLLevelShift,
    KLTrendChange,
    KLVolatility,
    KLNegative,
    KLNotObservable,
    KLFlat,
    NonFinite,
    StepGap,
    ClampSaturation,
    RewardIdentity,
    FirstStepKL,
    LowCoverage,
    ReferenceChanged,
    BetaChanged,
    BetaController,
    EstimatorConfig,
    LimitLoosened,
    UpdateKLHigh,
    RatioOutOfBand,
    ClipFractionHigh,
    GradientAnomaly,
    RewardHacking,
    Overoptimization,
    EntropyCollapse,
    EntropyExplosion,
    LengthDrift,
    EosMissing,
    Stalled,
    OverConstrained,
    SliceDivergence,
    RetentionLoss,
    RolloutMismatch,
    MismatchTrend,
    TruncatedSampling,
    OffPolicyScoring,
)
"""In the order of their codes."""

__all__ = ["RULES"]
