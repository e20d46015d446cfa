"""plait merges neural-network checkpoints in weight space."""

__version__ = "0.1.0"
