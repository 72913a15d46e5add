"""Every decision, one file each: facts in, a frozen answer out. No clock, no client, no log; `now` is an argument."""
