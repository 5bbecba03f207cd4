"""A file for each library: ``programs()`` gives what is trained of it."""
