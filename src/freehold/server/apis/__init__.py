"""One file an API. Shapes are Claude Managed Agents' where they fit; what is ours stands under `freehold`."""
