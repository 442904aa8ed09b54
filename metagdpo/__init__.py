"""Continual fine-tuning with MetaGDPO, a forgetting gate and verified releases."""

__version__ = "0.1.0"
