"""Whole networks trained in compiled loops: forward and backward passes of training plans.

Activations lie in one flat array. The batch is divided into groups of examples, whose values lie side by side: pixel
p of example e of group g is at `g * group_size + p * n + e`. So one weight is multiplied with a contiguous stream of
numbers, and the zeros around an image, which convolutions read, are at the same distance from every pixel. Gradients
lie in another array in the same way. Networks of features have one group, of the whole batch; others groups of 16.
"""
