"""Freehold: any model behind one parameter, agents as declared, durable resources, on your own machines."""

__version__ = "0.1.0"
