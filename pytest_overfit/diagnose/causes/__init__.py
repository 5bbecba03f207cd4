"""One small function per rule: evidence in, causes out. No torch here."""
