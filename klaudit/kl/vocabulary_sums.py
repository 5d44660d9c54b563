"""What a part of the vocabulary adds to the divergence of two distributions, before their normalisers are known.

At one token let y be the policy's logits over the part, z the reference's, a and b the largest of each, and

    u = y - a, w = z - b, x = u - w

    policy_mass P = sum exp(u)              policy_level = sum exp(u) u
    reference_mass Q = sum exp(w)           reference_level = sum exp(w) w
    log_ratio = sum exp(u) x
    gap = sum exp(u) (expm1(-x) + x)        = log_ratio + Q - P, in terms that are 0 or more

Sums of two parts are moved to common offsets and added, as log-sum-exp is. Over the whole vocabulary there are two forms of one number:

    KL(policy || reference) = log_ratio / P + log(Q / P)
                            = gap / P - (g - log1p(g)),  g = Q / P - 1

In the first a small KL is the difference of two numbers of the size of its root, and drowns in their rounding. In the second it is not: a and b
belong to the likeliest entries, so that x is of the size of the drift where there is mass, and `gap` and the correction are both second order in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from klaudit.kl.exact import divergence_terms, widen

FAR = 60.0
"""Nats that a reference logit may rise above the policy's before exp(-x) threatens to leave float32; such tokens are summed in float64."""
NEAR = 0.1
"""`gap / P` in nats up to which the second form has the smaller error."""
NO_MASS = -1e38
"""Stands for a largest logit of -inf: finite, so that differences of offsets are numbers; exp of it is 0."""
LEAST_FACTOR = 1e-300
"""Instead of 0, so that an infinite sum stays infinite however little mass it is moved to."""


@dataclass(frozen=True, eq=False, slots=True)
class VocabularySums:
    """Of a part of the vocabulary at each of n tokens; [n], float64."""

    policy_offset: Tensor
    reference_offset: Tensor
    policy_mass: Tensor
    reference_mass: Tensor
    policy_level: Tensor
    reference_level: Tensor
    log_ratio: Tensor
    gap: Tensor

    def move(self, policy_offset: Tensor, reference_offset: Tensor) -> "VocabularySums":
        """The same sums relative to other offsets."""
        rise, reference_rise = self.policy_offset - policy_offset, self.reference_offset - reference_offset
        factor, reference_factor = rise.exp().clamp(min=LEAST_FACTOR), reference_rise.exp().clamp(min=LEAST_FACTOR)
        mass, reference_mass = factor * self.policy_mass, reference_factor * self.reference_mass
        shift = (rise - reference_rise) * mass
        return VocabularySums(
            policy_offset,
            reference_offset,
            mass,
            reference_mass,
            factor * self.policy_level + rise * mass,
            reference_factor * self.reference_level + reference_rise * reference_mass,
            factor * self.log_ratio + shift,
            factor * self.gap + (reference_factor - factor) * self.reference_mass + shift,
        )

    def merge(self, other: "VocabularySums") -> "VocabularySums":
        """Sums over this part and another."""
        policy_offset = torch.maximum(self.policy_offset, other.policy_offset)
        reference_offset = torch.maximum(self.reference_offset, other.reference_offset)
        one, two = self.move(policy_offset, reference_offset), other.move(policy_offset, reference_offset)
        return VocabularySums(
            policy_offset,
            reference_offset,
            one.policy_mass + two.policy_mass,
            one.reference_mass + two.reference_mass,
            one.policy_level + two.policy_level,
            one.reference_level + two.reference_level,
            one.log_ratio + two.log_ratio,
            one.gap + two.gap,
        )

    def measure_full(self) -> Tensor:
        """KL(policy || reference) in nats, 0 or more, [n]; of a whole vocabulary."""
        gap, excess = self.gap / self.policy_mass, self.reference_mass / self.policy_mass - 1
        far = self.log_ratio / self.policy_mass + self.reference_mass.log() - self.policy_mass.log()
        return torch.where(gap <= NEAR, gap - (excess - excess.log1p()), far).clamp(min=0)

    def measure_entropies(self) -> tuple[Tensor, Tensor]:
        """Of policy and reference in nats, 0 or more, [n] each; of a whole vocabulary."""
        policy = self.policy_mass.log() - self.policy_level / self.policy_mass
        return policy.clamp(min=0), (self.reference_mass.log() - self.reference_level / self.reference_mass).clamp(min=0)

    def find_normalisers(self) -> tuple[Tensor, Tensor]:
        """Log of the sum of exp of the logits, of policy and reference, [n] each; of a whole vocabulary."""
        return self.policy_offset + self.policy_mass.log(), self.reference_offset + self.reference_mass.log()


def sum_part(policy: Tensor, reference: Tensor, *, spare: tuple[Tensor, Tensor]) -> VocabularySums:
    """Sums over a part of the vocabulary, from its logits, in no memory of that size but what is given.

    Args:
        policy: logits, [n, n_part], float32; overwritten.
        reference: of the same, overwritten.
        spare: two tensors of that shape and dtype to work in.
    """
    # each result takes the place of what is needed no more; a pass over a tile costs as much as arithmetic in it
    offset, reference_offset = (one.amax(1, keepdim=True).clamp_(min=NO_MASS) for one in (policy, reference))
    policy.sub_(offset)
    reference.sub_(reference_offset)
    mass, work = spare
    opposite = torch.sub(reference, policy, out=work)
    strange = ((opposite.amax(1) <= FAR) & (opposite.amin(1) > -torch.inf)).logical_not_().nonzero()[:, 0]
    careful = _sum_carefully(policy[strange], reference[strange]) if len(strange) else None

    torch.exp(policy, out=mass)
    sums = [mass.sum(1), torch.mul(mass, policy, out=policy).sum(1), -torch.mul(mass, opposite, out=policy).sum(1)]
    sums.append(torch.expm1(opposite, out=policy).sub_(opposite).mul_(mass).sum(1))
    torch.exp(reference, out=mass)
    sums += [mass.sum(1), torch.mul(mass, reference, out=reference).sum(1)]
    policy_mass, policy_level, log_ratio, gap, reference_mass, reference_level = (widen(one) for one in sums)
    found = [policy_mass, reference_mass, policy_level, reference_level, log_ratio, gap]
    if careful is not None:
        for all_tokens, these in zip(found, careful, strict=True):
            all_tokens[strange] = these
    return VocabularySums(widen(offset[:, 0]), widen(reference_offset[:, 0]), *found)


def join_tokens(sums: Sequence[VocabularySums]) -> VocabularySums:
    """Sums over one part of the vocabulary, of these tokens one after the other."""
    return VocabularySums(*(torch.cat([getattr(one, field.name) for one in sums]) for field in fields(VocabularySums)))


def _sum_carefully(policy: Tensor, reference: Tensor) -> tuple[Tensor, ...]:
    """The six sums where logits are -inf or far apart, in float64."""
    policy, reference = widen(policy), widen(reference)
    masses = [one.exp() for one in (policy, reference)]
    levels = [(mass * one).masked_fill(one == -torch.inf, 0).sum(1) for mass, one in zip(masses, (policy, reference), strict=True)]
    policy_mass, reference_mass = (mass.sum(1) for mass in masses)
    gap = divergence_terms(policy, reference).sum(1)
    return policy_mass, reference_mass, *levels, gap - (reference_mass - policy_mass), gap
