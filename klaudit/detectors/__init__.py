"""Change detectors over one series, one per file; noise floors."""

from klaudit.detectors.jump import JumpDetector, JumpScore
from klaudit.detectors.noise_floor import find_noise_floor

__all__ = ["JumpDetector", "JumpScore", "find_noise_floor"]
