"""Waveform to encoder input: crop, FBANK, pad, normalise, mask."""
