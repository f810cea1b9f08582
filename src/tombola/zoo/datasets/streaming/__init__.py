"""Datasets larger than memory: images are read and decoded when a batch needs them.

A `StreamedDataset` has an `ImageSource` for each part, which finds encoded images in files; an `ImageReader` decodes
batches of them in several threads, ahead of the training; `StreamedExamples` scales them on the device.
"""
