"""Batches to weights: the loss, the optimisers, the schedule and the one training loop."""
