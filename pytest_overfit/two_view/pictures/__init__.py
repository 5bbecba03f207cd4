"""Pictures of pairs and of predictions, as arrays of colours. OpenCV and Pillow, no torch."""
