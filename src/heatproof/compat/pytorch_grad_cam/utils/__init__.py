"""Targets, images and token layouts, by the names of pytorch-grad-cam."""
