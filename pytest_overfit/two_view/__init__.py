"""The application: two views of a scene in, depth, confidence and cameras out."""
