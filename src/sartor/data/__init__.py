"""Data sets as tensors on the device, or read by workers on the way there."""
