"""The HTTP door. Knows dialects, not adapters: everything behind it comes in as ports and services from app.py."""
