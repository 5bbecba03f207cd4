"""What gathers evidence from a live run: early steps under close watch, probes, trials."""
