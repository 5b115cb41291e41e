"""One benchmark a station, peers beside ours, as ratios of one run."""
