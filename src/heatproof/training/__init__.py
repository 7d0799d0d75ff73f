"""Training networks on sets of images with known ground truth: the models on which metrics are judged."""
