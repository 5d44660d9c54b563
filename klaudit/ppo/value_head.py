"""The critic: one linear layer on the policy's last hidden state."""

import torch
from torch import Tensor, nn


class ValueHead(nn.Module):
    """Predicts the return from the hidden state that predicts the next token.

    It shares the trunk with the policy, as in Ziegler 2019 (openai/lm-human-preferences, policy.py), where TRL 1.12.0 has a second whole model.
    Its weights begin at zero, as there, so that the first advantages are the rewards and not the luck of an initialisation
    (Huang 2023, The N Implementation Details of RLHF with PPO, on value heads).
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Values [n_sequences, n_tokens] in score units, of hidden states [n_sequences, n_tokens, hidden size]."""
        values: Tensor = self.linear(hidden.to(torch.float32)).squeeze(-1)
        return values
