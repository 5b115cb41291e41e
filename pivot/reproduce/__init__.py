"""A paper's experiments as data, and the command that lists, runs or only tries them."""
