"""Shards, captions, labels and pairs to batches."""
