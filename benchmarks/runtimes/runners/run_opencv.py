"""OpenCV's new engine."""

import common
import cv2
import onnx


def load(path, feeds):
    cv2.setNumThreads(1)
    graph = onnx.load(path).graph
    net = cv2.dnn.readNetFromONNX(str(path), engine=cv2.dnn.ENGINE_NEW)
    weights = {t.name for t in graph.initializer}
    inputs, names = [v.name for v in graph.input if v.name not in weights], [v.name for v in graph.output]

    def run():
        for name in inputs:
            net.setInput(feeds[name], name)
        return dict(zip(names, net.forward(names), strict=True))

    return run


if __name__ == "__main__":
    common.main(load)
