"""Flight recorder and auditor of RLHF training."""
