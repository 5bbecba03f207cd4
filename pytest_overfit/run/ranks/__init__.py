"""One run by several ranks: who they are, what they agree on, how a lost one is found."""
