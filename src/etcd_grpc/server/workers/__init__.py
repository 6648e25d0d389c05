"""``serve`` with several worker processes: who starts, watches, replaces and ends them."""
