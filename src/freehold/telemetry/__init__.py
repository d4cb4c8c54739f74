"""Telemetry: how the house tells what it does: log lines, so far."""
