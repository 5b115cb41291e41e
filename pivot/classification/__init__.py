"""Supervised classification of sounds: a head on the audio encoder, trained fold by fold."""
