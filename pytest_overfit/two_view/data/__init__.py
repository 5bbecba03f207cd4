"""From a pair on disk to one frozen, fingerprinted batch."""
