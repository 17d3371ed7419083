"""A trained model as an ONNX file, and what is made of one."""
