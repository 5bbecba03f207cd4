"""Pictures of pairs and of predictions, as arrays of colours. Pillow, no torch."""
