"""Ship: what a ticket is worth outside of training: smaller networks, faster ones, ONNX."""
