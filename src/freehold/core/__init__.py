"""THE HEART: frozen values and pure functions. No I/O, no clock, no vendor, no framework (msgspec only)."""
