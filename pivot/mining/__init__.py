"""Vectors and sentences to (sound, caption) pairs."""
