"""The TensorBoard files of a run."""
