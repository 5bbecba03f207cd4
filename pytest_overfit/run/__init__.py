"""One frozen batch, one subject, one bounded loop: a record of plain numbers."""
