"""The numbers that a policy may change."""

from pydantic import BaseModel, ConfigDict


class RuleParameters(BaseModel):
    """The numbers of a rule that a policy may change; each field says its unit and meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
