"""The one synchronous face of Freehold: what the command line talks with. Speaks HTTP only; knows nothing of the rooms behind.

Import from the modules: errors.py costs nothing, client.py loads the HTTP library.
"""
