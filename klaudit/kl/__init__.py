"""Mathematics of KL on tensors, and the controllers of beta.

Importing this package is light: it brings the torch-free controllers. What needs torch is imported from its own file:
`klaudit.kl.estimators` (k1, k2, k3), `klaudit.kl.exact` (whole vocabulary, entropy), `klaudit.kl.tiled` (the same from hidden states, in tiles),
`klaudit.kl.reduce` (tokens to batch).
"""

from klaudit.kl.controllers import AdaptiveBeta, BetaController, FixedBeta

__all__ = ["AdaptiveBeta", "BetaController", "FixedBeta"]
