"""How far d = sqrt(KL per sequence) moves from one batch to the next when the policy does not move at all."""

import math

from klaudit.records import KLReading

UNKNOWN_BATCH_FLOOR = 0.05
"""In d, where neither a standard error nor the batch size is known (research: R06)."""

RELATIVE_SD = {"full": 0.4, "k3": 1.0}
"""Standard deviation of one sequence's estimate over the KL itself, for estimators whose noise grows with the KL.

full: 0.4 is what real language models give (its variance is 1/16 of k1's 2 KL at KL 0.8 and 1/252 at KL 0.05; both make 0.4).
k3: 1.0, above the 0.31 to 0.92 of a toy language model, because k3 has a long upper tail once reference / policy is large.
"""


def find_noise_floor(reading: KLReading) -> float:
    """Standard deviation, in d, that sampling alone gives a reading in nats per sequence.

    A measured standard error SE of the KL gives SE / (2 d) (delta method), never more than sqrt(SE), which is what remains at d = 0.
    Without one, k1 has Var = 2 KL, hence 1 / sqrt(2 B) at every KL; `full` and k3 have a spread in proportion to the KL,
    hence RELATIVE_SD d / (2 sqrt(B)); an unknown batch or estimator gets UNKNOWN_BATCH_FLOOR.

    Args:
        reading: finite, in nats per sequence.

    Returns:
        In d, sqrt(nats per sequence); 0 or more.

    Source: delta method; Var(k1) = 2 KL for Gaussian log-ratios because E[exp(-l)] = 1.
    """
    kl = max(reading.value or 0.0, 0.0)
    standard_error = reading.standard_error
    if standard_error is not None and math.isfinite(standard_error):
        return find_delta_method_error(kl, standard_error=standard_error)
    if reading.n_sequences is None:
        return UNKNOWN_BATCH_FLOOR
    if reading.series.estimator == "k1":
        return 1 / math.sqrt(2 * reading.n_sequences)
    relative_sd = RELATIVE_SD.get(reading.series.estimator)
    if relative_sd is None:
        return UNKNOWN_BATCH_FLOOR
    return relative_sd * math.sqrt(kl) / (2 * math.sqrt(reading.n_sequences))


def find_delta_method_error(kl: float, *, standard_error: float) -> float:
    """Standard error of d = sqrt(kl): SE / (2 d), at most sqrt(SE).

    Args:
        kl: 0 or more, nats per sequence.
        standard_error: of `kl`, nats per sequence.
    """
    at_zero = math.sqrt(standard_error)
    d = math.sqrt(kl)
    return at_zero if 2 * d <= at_zero else standard_error / (2 * d)
