"""A trainer's config as what a run takes: composed objects, imports, weights, schedules."""
