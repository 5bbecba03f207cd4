"""The pair on disk: layout, safe readers, creation, a rendered source and its checks. No torch, no pytest."""
