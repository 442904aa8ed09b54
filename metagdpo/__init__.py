"""Continual fine-tuning with MetaGDPO, a forgetting gate and verified releases."""
