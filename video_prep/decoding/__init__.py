"""Reads one media file: containers, packets, pictures and sound, each fault with its reason."""
