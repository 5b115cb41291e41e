"""Waveform to encoder input: crop, fill, FBANK or log-mel, views, normalise, mask."""
