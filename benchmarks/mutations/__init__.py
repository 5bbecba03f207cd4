"""What `benchmarks/mutate.py` does to sound files, by format, and what reads them."""
