"""A YAML config file, composed and checked, as one frozen record of plain values.

``schema`` (the records) imports nothing heavy; ``loading`` (Hydra, OmegaConf) does so only while it loads.
"""
