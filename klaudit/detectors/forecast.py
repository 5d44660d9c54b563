"""What the next value of a KL series should be, and how far off that usually is: a small bank of forecasters of which the best one speaks."""

import math
from collections import deque
from collections.abc import Mapping
from math import exp, hypot, log
from typing import Any, Literal, NamedTuple

Noise = Literal["sampling", "proportional"]
"""How the noise grows with the KL: sampling: with its square root (k1: Var = 2 KL / B); proportional: with the KL itself (k3, full)."""
Scale = Literal["linear", "log"]

GAINS = (0.1, 0.4)
"""Of the level: for noise around a slow curve, and for a level that wanders, whose best forecast is near its last value."""
SLOPE_GAIN = 0.04
"""Of the slope, as a share of the level's; larger ones take a change of slope in before it can be told."""
DAMPING = 0.97
"""What is left of the slope a step later; growth that is carried on for ever overshoots as the KL saturates."""
CLIP = 4.0
"""An innovation counts up to so many standard deviations: an outlier does not move the level far."""
STUDENT = 5.0
"""Degrees of freedom of the noise."""
ROOT = math.sqrt(STUDENT)
POWER = (STUDENT + 1) / 2
"""Of that noise's density."""
FARTHEST_SQUARE = 25.0
"""A squared innovation counts up to so much against a forecaster."""
SPREAD = 1.27
"""Variance over the square of the scale that the weights of Student-t noise find; for six degrees of freedom and more."""
WINDOW = 100
"""Innovations whose weighted mean square is the scale."""
LATELY = 15
"""The last innovations among them."""
CALMER = 2.0
"""Where the mean square of the last ones, times this, is below that of the window, it is the scale: growth out of zero is forgotten."""
LIKELIHOOD_WEIGHT = 0.02
"""Of the latest value in a forecaster's mean log-likelihood."""
EVIDENCE = 0.25
"""Of a value's log-likelihood that counts when forecasters are weighed against each other: their errors are alike, and none of them is the truth."""
LEAST_EVIDENCE, LONGEST_EVIDENCE = 20, 220
"""Values that the mean of a likelihood counts for at least, and at most."""
FARTHEST = 1e100
"""Nats; what is farther from zero counts as this, so that its square is a number."""
FARTHEST_LINE = 700.0
"""Where a line may lead on the scale of asinh, either way: what lies farther is no float."""
SMALLEST = 1e-15
"""Standard deviation that is never gone below, so that it can be divided by."""
FORGOTTEN = 8
"""First innovations that are forgotten as soon as there are twice as many: they are those of growth out of zero."""
END_OF_GROWTH = 2 * FORGOTTEN + 1
UNCLIPPED = 5
"""First innovations that count in full."""
SETTLED = 1.8
"""Standard deviations from the level within which a value is no other level."""
FIRST_CHOICE = 10
"""Values before the likelihoods begin."""


Innovation = tuple[float, float, float, float, float]
"""One value against its forecast: the innovation in standard deviations on the forecaster's own scale; that against the higher of level and
forecast, because growth that goes on is no excess, and neither is a return to the level; that against the lower of the two; the forecast, and
the standard deviation of its error, both in the series' unit."""


class Surprise(NamedTuple):
    """One value against the forecasts of a bank, each weighed by how likely it made the values before."""

    z: float
    """Mean of the innovations, in standard deviations."""
    z_up: float
    """Mean of those against the higher of level and forecast."""
    z_down: float
    """Mean of those against the lower of the two."""
    p_up: float
    """Chance of a value this high or higher, against the higher of level and forecast, under Student-t errors; 1 where it cannot be rare."""
    expected: float
    """The likeliest forecaster's forecast, in the series' unit."""
    sd: float
    """Standard deviation of its error, in the series' unit."""


class Forecaster:
    """Holt's linear smoothing with a damped slope, clipped innovations, and the scale of the last of them under Student-t noise.

    `linear`: innovations are measured in units of max(forecast, least)^p, p = 1/2 for sampling noise and 1 for proportional noise.
    `log`: the series is asinh(x / 2 least), the logarithm above `least` and linear around zero, so that k1 may be negative.
    """

    __slots__ = (
        "_exponent", "_forecast", "_innovations", "_late_squares", "_least", "_level", "_n", "_own_sd", "_sd", "_slope", "_squares",
        "_unit", "_z", "gain", "is_linear", "likelihood",
    )  # fmt: skip

    def __init__(self, scale: Scale, *, gain: float, noise: Noise, least: float) -> None:
        self.is_linear = scale == "linear"
        self.gain = gain
        self._exponent = 0.5 if noise == "sampling" else 1.0
        self._least = least
        self._level = self._slope = self._squares = self._late_squares = 0.0
        self._forecast = self._z = self._sd = self._own_sd = 0.0
        self._unit = 1.0
        self._n = 0
        self._innovations: deque[float] = deque()
        self.likelihood = 0.0

    def begin(self, value: float) -> None:
        """Take in the first value."""
        self._level = self.transform(value)
        self._n = 1

    def transform(self, value: float) -> float:
        """A value on the forecaster's scale."""
        return value if self.is_linear else math.asinh(value / (2 * self._least))

    def restore(self, transformed: float) -> float:
        """What `transform` made of a value, back in the series' unit."""
        return transformed if self.is_linear else 2 * self._least * math.sinh(max(-FARTHEST_LINE, min(FARTHEST_LINE, transformed)))

    def judge(self, transformed: float, *, least_sd: float, stretch: float) -> Innovation:
        """A value against the forecast; to be followed by `absorb`.

        Args:
            transformed: the value, on the forecaster's scale.
            least_sd: the least standard deviation that the value can have, in the series' unit.
            stretch: logarithm of the scale's units that one unit of the series is, at the value.
        """
        level, least = self._level, self._least
        forecast = level + self._slope * DAMPING
        # Noise in proportion to the KL is that of an estimator which is not negative: after a huge spike the slope may lead there.
        if forecast < 0 and self._exponent == 1.0:
            forecast = 0.0
        self._forecast = forecast
        if self.is_linear:
            expected, in_unit = forecast, 1.0
            unit = self._unit = (forecast if forecast > least else least) ** self._exponent
            sd = self._own_sd * unit
        else:
            expected = self.restore(forecast)
            in_unit = hypot(expected if expected > least else least, 2 * least)
            sd, least_sd = self._own_sd, least_sd / in_unit
        sd = self._sd = max(sd, least_sd, SMALLEST)
        z = self._z = (transformed - forecast) / sd
        of_level = (transformed - level) / sd
        if self._n >= FIRST_CHOICE - 1:
            self._weigh(z, sd=sd, stretch=stretch)
        return (z, z, of_level, expected, sd * in_unit) if forecast > level else (z, of_level, z, expected, sd * in_unit)

    def absorb(self, *, trust: float) -> None:
        """Move towards the value that was judged.

        Args:
            trust: from 0 to 1; little where it is suspected that the series has changed, because a forecaster that follows hides the change.
        """
        n = self._n = self._n + 1
        z, sd = self._z, self._sd
        own_sd = sd / self._unit
        square = z * z
        if n > UNCLIPPED:
            square *= (STUDENT + 1) / (STUDENT + square)
            z = CLIP if z > CLIP else -CLIP if z < -CLIP else z
        gain = trust * (self.gain if self.gain * n > 2 else 2 / n)
        move = gain * z * sd
        self._level = self._forecast + move
        if n > 2:
            self._slope = DAMPING * self._slope + (SLOPE_GAIN if SLOPE_GAIN * (n + 1) > 1 else 1 / (n + 1)) * move
        self._remember(own_sd * own_sd * SPREAD * square)

    def settle(self, value: float) -> None:
        """Take `value` for the level, where it is far from it: the series has changed."""
        transformed = self.transform(value)
        if abs(transformed - self._level) > SETTLED * self._sd:
            self._level = transformed

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {
            "level": self._level,
            "slope": self._slope,
            "n": self._n,
            "innovations": list(self._innovations),
            "likelihood": self.likelihood,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._level, self._slope, self._n = state["level"], state["slope"], state["n"]
        self._innovations = deque(state["innovations"])
        self._add_up()
        self._own_sd = 0.0
        if self._innovations:
            self._find_own_sd()
        self.likelihood = state["likelihood"]

    def _remember(self, square: float) -> None:
        innovations = self._innovations
        innovations.append(square)
        n = len(innovations)
        late_squares, squares = self._late_squares + square, self._squares + square
        if n > LATELY:
            late_squares -= innovations[-LATELY - 1]
        if n > WINDOW:
            squares -= innovations.popleft()
        self._late_squares, self._squares = late_squares, squares
        if self._n == END_OF_GROWTH:
            for _ in range(FORGOTTEN):
                innovations.popleft()
        if self._n % WINDOW == 0 or self._n == END_OF_GROWTH:
            self._add_up()
        self._find_own_sd()

    def _add_up(self) -> None:
        """Take the sums anew, so that their rounding does not add up."""
        self._squares = math.fsum(self._innovations)
        self._late_squares = math.fsum(list(self._innovations)[-LATELY:])

    def _find_own_sd(self) -> None:
        n = len(self._innovations)
        variance = self._squares / n
        if n > LATELY and CALMER * self._late_squares < variance * LATELY:
            variance = CALMER * self._late_squares / LATELY
        self._own_sd = math.sqrt(variance) if variance > 0 else 0.0

    def _weigh(self, z: float, *, sd: float, stretch: float) -> None:
        """Mean log-likelihood of the values under Student-t errors, in the series' own unit so that scales can be compared."""
        square = z * z
        density = stretch - log(sd * (1 + (square if square < FARTHEST_SQUARE else FARTHEST_SQUARE) / STUDENT) ** POWER)
        # A running mean at first, begun again once the first steps are forgotten.
        n_weighed = self._n - (END_OF_GROWTH - 1 if self._n >= END_OF_GROWTH else FIRST_CHOICE - 2)
        weight = 1 / n_weighed
        self.likelihood += (weight if weight > LIKELIHOOD_WEIGHT else LIKELIHOOD_WEIGHT) * (density - self.likelihood)


class ForecastBank:
    """Forecasters of two gains on two scales, each weighed by how likely it made the values so far.

    Noise that is added and noise that multiplies ask for different scales, and a level that wanders for another gain than noise around a
    slow curve; a run's own values decide, and where they have not decided yet a value is surprising only if all that remains finds it so.
    State is JSON.

    Source: Holt 1957; Gardner and McKenzie 1985 (damped slope); Gelper, Fried and Croux 2010 (clipped innovations); Lange, Little and
    Taylor 1989 (scale of Student-t noise by weights); Hoeting et al. 1999 (model averaging).
    """

    def __init__(self, *, noise: Noise, least: float, rare: float = 1.0) -> None:
        """Build it.

        Args:
            noise: how the noise grows with the KL.
            least: a KL below which nothing can be told from zero, in the series' unit; above 0.
            rare: the chance that matters: `p_up` is worked out where it may be below it, and 1 elsewhere.
        """
        scales: tuple[Scale, ...] = ("linear", "log")
        self._bank = [Forecaster(scale, gain=gain, noise=noise, least=least) for scale in scales for gain in GAINS]
        self._least = least
        self._n = 0
        # The likeliest forecaster has a share of 1 / n or more, so its own tail alone can say that the mean of all is not below `rare`.
        common = rare * len(self._bank)
        self._plain_z = find_quantile(common) if common < 0.5 else -math.inf

    def __len__(self) -> int:
        return self._n

    def judge(self, value: float, *, least_sd: float, widening: float) -> Surprise | None:
        """The value against its forecasts; None for the first value. To be followed by `absorb`.

        Args:
            value: finite, in the series' unit.
            least_sd: the least standard deviation that the value can have, in the series' unit.
            widening: what the forecasters' standard deviations are multiplied by; 1 where they are known well.
        """
        self._n += 1
        if self._n == 1:
            for one in self._bank:
                one.begin(value)
            return None
        least = self._least
        in_logs = math.asinh(value / (2 * least))
        of_logs = -0.5 * math.log(value * value + 4 * least * least)
        best = max([one.likelihood for one in self._bank])
        n_weighed = self._n - (END_OF_GROWTH if self._n > END_OF_GROWTH else FIRST_CHOICE)
        evidence = EVIDENCE * min(max(n_weighed, 0) + LEAST_EVIDENCE, LONGEST_EVIDENCE)
        weights = [exp(evidence * (one.likelihood - best)) for one in self._bank]
        total = sum(weights)
        z = z_up = z_down = expected = sd = heaviest = likeliest = 0.0
        ups = []
        for one, weight in zip(self._bank, weights, strict=True):
            transformed, stretch = (value, 0.0) if one.is_linear else (in_logs, of_logs)
            one_z, one_z_up, one_z_down, one_expected, one_sd = one.judge(transformed, least_sd=least_sd, stretch=stretch)
            z += weight * one_z
            z_up += weight * one_z_up
            z_down += weight * one_z_down
            ups.append(one_z_up / widening)
            if weight > heaviest:
                heaviest, likeliest, expected, sd = weight, ups[-1], one_expected, one_sd
        p_up = 1.0
        if likeliest >= self._plain_z:
            p_up = sum([weight * find_tail(one) for weight, one in zip(weights, ups, strict=True)]) / total
        widened = total * widening
        return Surprise(z / widened, z_up / widened, z_down / widened, p_up, expected, sd * widening)

    def absorb(self, *, trust: float) -> None:
        """Let the forecasters move towards the value that was judged; see Forecaster."""
        if self._n > 1:
            for one in self._bank:
                one.absorb(trust=trust)

    def settle(self, value: float) -> None:
        """See Forecaster."""
        for one in self._bank:
            one.settle(value)

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as JSON."""
        return {"n": self._n, "forecasters": [one.state_dict() for one in self._bank]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._n = state["n"]
        for one, remembered in zip(self._bank, state["forecasters"], strict=True):
            one.load_state_dict(remembered)


def find_tail(z: float) -> float:
    """Chance that Student-t noise with STUDENT degrees of freedom exceeds z, in units of its scale.

    Closed form for five degrees of freedom (Abramowitz and Stegun 26.7.3), and its leading term where that cancels.
    """
    if z > 30.0:
        return 200 / (3 * math.pi * ROOT) * (1 / z) ** 5
    share = 1 + z * z / STUDENT
    return 0.5 - (z / (ROOT * share) * (1 + 2 / (3 * share)) + math.atan(z / ROOT)) / math.pi


def find_quantile(p: float) -> float:
    """The z whose `find_tail` is p, for p below one half; by bisection to 1e-9, relative."""
    low, high = 0.0, 1.0
    while find_tail(high) > p and high < FARTHEST:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if find_tail(middle) > p else (low, middle)
    return high
