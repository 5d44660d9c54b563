"""Change detectors over one series, one per file; what they are made of, and how they are scored."""
