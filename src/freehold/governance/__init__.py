"""Governance: who is there, what they may do, and how secrets are reached. The decision itself is core/policy.py."""
