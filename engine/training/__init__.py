"""Dialogue layout, loss masks, batches, the training loop and its checkpoints."""
