"""A page in which a model and its explanation run in the browser, with onnxruntime-web."""
