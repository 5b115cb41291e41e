"""A plan carried out: workers supervised, shards claimed, folders shared, progress told."""
