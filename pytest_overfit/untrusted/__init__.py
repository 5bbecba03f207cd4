"""What others have written, opened and looked at without running any of it: files, and objects of their classes."""
