"""One run as lines of text: its table, its failure, its numbers, its progress. Pure functions of plain records."""

LANGUAGES = ("en", "zh")  # of the terminal and of the experiment record
