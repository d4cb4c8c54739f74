"""Clients of httpx2, and so the vendors' SDKs, share what they trust by default: each would else read the machine's certificate authorities.

That takes 40 ms of CPU, as much as a dozen requests, for clients that speak plain HTTP. Tests of TLS bring certificates of their own.
"""

from functools import cache

import httpcore2

httpcore2.default_ssl_context = cache(httpcore2.default_ssl_context)
