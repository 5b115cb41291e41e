"""The embedded default: a small made-up audio-visual world, its clips, captions and tiny CLIP."""
