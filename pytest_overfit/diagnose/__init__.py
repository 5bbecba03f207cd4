"""Evidence to causes: what was seen, what a probe showed, what a trial proved, and what follows from it."""
