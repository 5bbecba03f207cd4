"""One run as lines of text: its table, its failure, its numbers, its progress. Pure functions of plain records."""
