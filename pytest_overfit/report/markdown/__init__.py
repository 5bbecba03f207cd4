"""The experiment record of a run, and what else is Markdown."""
