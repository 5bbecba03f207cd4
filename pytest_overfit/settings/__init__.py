"""A YAML config file, composed and checked, as one frozen record of plain values.

``schema`` (the records) imports nothing heavy; ``loading`` (OmegaConf) does so only while it loads. Hydra is
an option: ``with_hydra`` composes where it is installed, ``defaults`` where it is not, to the same tree.
"""
