"""A record of a run as findings, criterion by criterion. Pure."""
