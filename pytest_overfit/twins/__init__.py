"""The same run from the same start, with one thing of its execution exchanged: it has to come to the same."""
