"""Who hands out the shards: this machine alone, a Ray cluster, or a Slurm job array."""
