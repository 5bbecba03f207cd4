"""Every form that a run is shown in: records, pages, Markdown, CI services, TensorBoard."""
