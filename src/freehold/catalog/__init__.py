"""Catalog: data about providers and prices, and the code that reads it. No addresses are dialled here."""
