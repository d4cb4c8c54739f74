"""Providers: where models live. One file an adapter, found by its name; files with an underscore are shared between them.

An adapter's file has `create(row, key, *, headers, pool)`, which opens nothing, so what it makes need not be closed: a row of
the catalog, the credential (None where there is none), and headers that go along with every request. It raises BadRequest,
naming the field, for an address or header that cannot be. `rules` is made from declared rules instead, and has no `create`.
"""
