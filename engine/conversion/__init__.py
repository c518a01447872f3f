"""Checkpoints of other layouts, written anew in the layout that transformers and vLLM read."""
