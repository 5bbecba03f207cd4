"""Healthy small models, each of which memorises one batch: a false-alarm test of the plugin."""
