"""Declared resources: templates read, compared with what is there, applied. Where they are kept is the store's business."""
