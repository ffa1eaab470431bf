"""Upstream's components in place of ours, and ours in place of upstream's; see `run`."""
